"""Attention by layout takes what layouts know, and refuses a model that attends with more."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmrl import plugins
from mmrl.errors import UserError
from mmrl.policy.family import Limits
from mmrl.policy.policy import wrap
from tests.families.tiny import build


def load(monkeypatch: pytest.MonkeyPatch, family: str, **more: Any) -> None:
    """Wrap a model whose layers hand `more` on to their attention."""
    model, processor = build("gemma3")
    for layer in model.model.language_model.layers:
        inner = layer.self_attn.forward
        monkeypatch.setattr(
            layer.self_attn, "forward", lambda *a, _inner=inner, **k: _inner(*a, **k, **more)
        )
    wrap(model, processor, plugins.load("family", family).build(model, processor, Limits(2000)))


@pytest.mark.parametrize(
    ("name", "value"),
    [("softcap", 30.0), ("s_aux", torch.zeros(4)), ("position_bias", torch.zeros(1, 4, 1, 1))],
)
def test_a_model_that_attends_with_more_is_refused_when_it_is_loaded(
    name: str, value: float | Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=f"attends with {name}, .* set model.family=generic"):
        load(monkeypatch, "gemma3", **{name: value})


@pytest.mark.parametrize("more", [{"softcap": None}, {"output_attentions": False}])
def test_what_is_not_set_is_taken(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    load(monkeypatch, "gemma3", **more)
