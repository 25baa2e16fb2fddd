"""What a training backend does: gradients in, weights moved, its state as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

from mmrl.policy.buckets import Buckets


class Backend(Protocol):
    """Owns the optimiser and its schedule.

    In a run of many processes all make the same steps, each with gradients of its own samples.
    """

    @property
    def in_step(self) -> bool:
        """True if all processes must run the same modules, equally often, in every pass."""
        ...

    @property
    def skips(self) -> bool:
        """True if a step may leave the weights as they are, for a gradient that is no good."""
        ...

    def gathered(self) -> AbstractContextManager[None]:
        """Make the weights whole on every process meanwhile; all of them enter it.

        What the first process writes into them stays.
        """
        ...

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        """Add the gradient of a micro-batch's scalar loss; a step's add up to the step's loss.

        They do over all processes too. `last` is the step's last on this process.
        """
        ...

    def send_back(self, roots: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Add what follows of gradients that flow into tensors, each [...] of its tensor's shape.

        They are as `backward` left them there.
        """
        ...

    def step(self, place: int | None = None) -> float:
        """Clip, move the weights, clear gradients; returns the gradient norm before clipping.

        `place` is the update's in the plan that the schedule goes by, counted from 0; the default
        is after those that were made. Raises TrainingError when the gradient is not finite; the
        weights are then unchanged. So are they where it `skips`, and `updates` with them.
        """
        ...

    updates: int
    """How many steps were made, those before a resume included."""

    def rate(self, place: int) -> float:
        """The learning rate of the update at a place of the plan."""
        ...

    def state(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        """Everything needed to continue: named tensors in their parameters' shapes, and JSON data.

        All processes ask for it; each gets the tensors that are its own to write.
        """
        ...

    def state_in_buckets(self) -> tuple[Buckets, Mapping[str, Any]]:
        """`state()` a few whole tensors at a time; all processes ask for all of theirs."""
        ...

    def load_state(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        """Continue from the `state()` of all processes together, however many there were.

        Tensors have their parameters' whole shapes, wherever these are sharded.
        """
        ...
