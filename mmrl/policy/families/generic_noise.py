"""Models that add noise to what they see or hear: the same noise in every forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_BEFORE = "_states_before_noise"


def hold_still(model: nn.Module) -> None:
    """Let every forward of a model draw the same noise, and leave the generators as they were.

    What is drawn depends on the shapes of what the model gets, so copies of a prompt go one by one.
    """
    if not hasattr(model, _BEFORE):
        setattr(model, _BEFORE, [])
        model.register_forward_pre_hook(_start)
        model.register_forward_hook(_stop, always_call=True)


def _start(model: Any, args: Any) -> None:
    cuda = torch.cuda.get_rng_state(model.device) if model.device.type == "cuda" else None
    getattr(model, _BEFORE).append((torch.get_rng_state(), cuda))
    torch.manual_seed(0)


def _stop(model: Any, args: Any, output: Any) -> None:
    state, cuda = getattr(model, _BEFORE).pop()
    torch.set_rng_state(state)
    if cuda is not None:
        torch.cuda.set_rng_state(cuda, model.device)
