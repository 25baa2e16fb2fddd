"""Weights under the names that a checkpoint's files have, which other programs load."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from mmrl.policy.buckets import Bucket, Buckets


def checkpoint_weights(model: Any, weights: Buckets) -> Buckets:
    """A model's weights, adapters added, in the shapes that `save_pretrained` would write.

    Tensors that only have another name are not copied; weights that are tied occur once.
    """
    ignored = set(model._keys_to_ignore_on_save or ())
    for bucket in weights:
        state = {name: value for name, value in bucket.items() if name not in ignored}
        found = _renamed(model, remove_tied_weights_from_state_dict(state, model))
        state.clear()
        yield found
        found.clear()


def checkpoint_adapter(model: Any, adapter: Buckets) -> Buckets:
    """An adapter's tensors as `MODULE.lora_A.weight` and `MODULE.lora_B.weight`.

    They are [rank, in] and [out, rank], alpha / rank in the second. MODULE is the linear's name in
    a checkpoint.
    """
    for bucket in adapter:
        found = _renamed(model, dict(bucket))
        yield found
        found.clear()


def _renamed(model: Any, state: Bucket) -> Bucket:
    converted: dict[str, Tensor] = revert_weight_conversion(model, state)
    # Two of transformers' rules for Qwen2-Audio both put the prefix on.
    return {name.replace(".model.model.", ".model."): w for name, w in converted.items()}
