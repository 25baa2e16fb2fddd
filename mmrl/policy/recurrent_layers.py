"""The recurrent layers of a model, taught that the active layout says what comes after what."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from mmrl.policy import attention
from mmrl.policy.recurrent import Memory

LAYERS = (
    "Lfm2ShortConv",
    "NemotronHMamba2Mixer",
    "Qwen3_5GatedDeltaNet",
    "Qwen3_5MoeGatedDeltaNet",
)
"""Classes whose layers ask a cache for nothing but what `Memory` answers; tests run each."""


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
            mixed: Tensor = own(hidden, attention_mask=mask, **{self.cache_name: memory})
            return mixed

        return layout.recur(self.layer_idx, mixer, hidden_states)


def share(model: nn.Module) -> bool:
    """Let layouts decide in every layer of a known class; True where the model has one.

    The class is exchanged and nothing else: weights, names, adapters and copies stay what they are.
    """
    found = False
    for module in model.modules():
        kind = type(module)
        if kind.__name__ in LAYERS and not isinstance(module, Recurs):
            module.__class__ = type(
                kind.__name__, (Recurs, kind), {"cache_name": _cache_name(kind)}
            )
        found |= isinstance(module, Recurs)
    return found


def _cache_name(kind: type[nn.Module]) -> str:
    """What a layer's forward calls its cache."""
    taken = inspect.signature(kind.forward).parameters
    return next(name for name in ("cache_params", "past_key_values") if name in taken)
