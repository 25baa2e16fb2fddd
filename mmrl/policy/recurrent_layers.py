"""The recurrent layers of a model, taught that the active layout says what comes after what."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mmrl.policy import attention
from mmrl.policy.recurrent import Memory


class Recurs:
    """Mixed into a recurrent layer's class; outside of any layout the layer is what it was."""

    cache_name: str
    layer_idx: int

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Let the active layout run the layer's own forward; hidden_states [1, N, H]."""
        own: Any = super().forward  # type: ignore[misc]
        layout = attention.current()
        if layout is None:
            out: Tensor = own(hidden_states, *args, **kwargs)
            return out

        def mixer(hidden: Tensor, memory: Memory, mask: Tensor | None) -> Tensor:
            with self.stepping() if hidden.shape[1] == 1 else nullcontext():
                mixed: Tensor = own(hidden, attention_mask=mask, **{self.cache_name: memory})
            return mixed

        return attention.ask(layout.recur, self.layer_idx, mixer, hidden_states)

    def stepping(self) -> AbstractContextManager[None]:
        """Let the layer's step of one token do what its forward over many does."""
        return nullcontext()


class Clamps(Recurs):
    """A Mamba2 layer: its forward keeps time steps above a least one, its step of a token does not.

    Softplus grows, so that what goes into it is kept above the inverse of the least one.
    """

    in_proj: nn.Module
    dt_bias: Tensor
    time_step_limit: tuple[float, float]

    @contextmanager
    def stepping(self) -> Iterator[None]:
        least = self.time_step_limit[0]
        if least <= 0:
            yield
            return
        floor = math.log(math.expm1(least)) - self.dt_bias
        scales = getattr(self, "mup_vector", None)  # Falcon-H1 multiplies what is projected
        if scales is not None:
            floor = floor / scales.flatten()[-len(floor) :]

        def clamp(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            rest, step = out.split([out.shape[-1] - len(floor), len(floor)], dim=-1)
            return torch.cat([rest, torch.maximum(step, floor.to(step.dtype))], dim=-1)

        handle = self.in_proj.register_forward_hook(clamp)
        try:
            yield
        finally:
            handle.remove()


LAYERS = {
    "BambaMixer": Clamps,
    "FalconH1Mixer": Clamps,
    "GraniteMoeHybridMambaLayer": Clamps,
    "Lfm2MoeShortConv": Recurs,
    "Lfm2ShortConv": Recurs,
    "Lfm3ShortConv": Recurs,
    "NemotronHMamba2Mixer": Clamps,
    "OlmoHybridGatedDeltaNet": Recurs,
    "Qwen3_5GatedDeltaNet": Recurs,
    "Qwen3_5MoeGatedDeltaNet": Recurs,
    "Qwen3NextGatedDeltaNet": Recurs,
}
"""Classes whose layers ask a cache for nothing but what `Memory` answers, and what each becomes."""


def share(model: nn.Module) -> bool:
    """Let layouts decide in every layer of a known class; True where the model has one.

    The class is exchanged and nothing else: weights, names, adapters and copies stay what they are.
    """
    found = False
    for module in model.modules():
        kind = type(module)
        if kind.__name__ in LAYERS and not isinstance(module, Recurs):
            taught = {"cache_name": _cache_name(kind)}
            module.__class__ = type(kind.__name__, (LAYERS[kind.__name__], kind), taught)
        found |= isinstance(module, Recurs)
    return found


def leave(model: nn.Module) -> None:
    """Make every layer what it was before `share`: rows that share nothing must not be cut."""
    for module in model.modules():
        if isinstance(module, Recurs):
            module.__class__ = type(module).__bases__[1]


def known(model: nn.Module) -> int:
    """How many layers of a model are of a known class."""
    return sum(type(module).__name__ in LAYERS for module in model.modules())


def _cache_name(kind: type[nn.Module]) -> str:
    """What a layer's forward calls its cache, which has had several names in the library."""
    taken = inspect.signature(kind.forward).parameters.values()
    return next(one.name for one in taken if "cache_utils.Cache" in str(one.annotation))
