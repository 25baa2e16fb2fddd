"""Weights under the names that a checkpoint's files have, which other programs load."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from mmrl.policy import lora
from mmrl.policy.weights import Named


def checkpoint_weights(model: Any, weights: Named) -> dict[str, Tensor]:
    """A model's weights, adapters added, in the shapes that `save_pretrained` would write.

    Tensors that only have another name are not copied; weights that are tied occur once.
    """
    return _as_saved(model, weights)


def checkpoint_base(model: Any) -> dict[str, Tensor]:
    """The weights beside the adapters, which training leaves alone, as `checkpoint_weights`.

    Names and shapes are those of a checkpoint without adapters.
    """
    return _as_saved(model, lora.base_weights(model))


def checkpoint_adapter(model: Any, adapter: Named) -> dict[str, Tensor]:
    """An adapter's tensors as `MODULE.lora_A.weight` and `MODULE.lora_B.weight`.

    They are [rank, in] and [out, rank], alpha / rank in the second. MODULE is the linear's name in
    a checkpoint.
    """
    return _renamed(model, dict(adapter))


def _as_saved(model: Any, weights: Named) -> dict[str, Tensor]:
    ignored = set(model._keys_to_ignore_on_save or ())
    state = {name: value for name, value in weights if name not in ignored}
    return _renamed(model, remove_tied_weights_from_state_dict(state, model))


def _renamed(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    converted: dict[str, Tensor] = revert_weight_conversion(model, state)
    # Two of transformers' rules for Qwen2-Audio both put the prefix on.
    return {name.replace(".model.model.", ".model."): w for name, w in converted.items()}
