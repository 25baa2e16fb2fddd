"""What a training backend does: gradients in, weights moved, its state as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor


class Backend(Protocol):
    """Owns the optimiser and its schedule."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one micro-batch; losses of a step add up to the step's loss."""
        ...

    def step(self) -> float:
        """Clip, move the weights, clear gradients; returns the gradient norm before clipping.

        Raises UserError when the gradient is not finite; the weights are then unchanged.
        """
        ...

    @property
    def updates(self) -> int:
        """How many steps were made, those before a resume included."""
        ...

    @property
    def learning_rate(self) -> float:
        """The rate the next step will use."""
        ...

    def state(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        """Everything needed to continue: named tensors and JSON data."""
        ...

    def load_state(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        ...
