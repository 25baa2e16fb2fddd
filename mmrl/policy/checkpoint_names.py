"""Weights under the names that a checkpoint's files have, which other programs load."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from mmrl.policy.policy import Policy


def checkpoint_weights(policy: Policy) -> dict[str, Tensor]:
    """The policy's weights, adapters added, as `save_pretrained` would write them.

    Tensors that only have another name are not copied; weights that are tied occur once.
    """
    model: Any = policy.model
    ignored = set(model._keys_to_ignore_on_save or ())
    state = {name: value for name, value in policy.weights() if name not in ignored}
    state = remove_tied_weights_from_state_dict(state, model)
    converted: dict[str, Tensor] = revert_weight_conversion(model, state)
    return converted
