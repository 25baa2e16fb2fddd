"""Tiny models are released ones with smaller numbers: a switch turned off would hide a fault."""

from __future__ import annotations

from typing import Any

import pytest

from mmrl.policy.head import lm_head
from tests.families.released import RELEASED, Released
from tests.families.tiny import TINY, build

every_model = pytest.mark.parametrize("name", RELEASED)

NAMING = {"_name_or_path", "dtype", "model_type", "transformers_version", "tie_word_embeddings"}
SMALLER = {
    "rope_theta": "of 4,096 positions",
    "query_pre_attn_scalar": "a head's size",
    "vision_use_head": "a part of the tower that no family uses",
}
"""What is not an integer and still a size, or of no use to a language model."""


def test_every_tiny_model_is_compared() -> None:
    same = {"qwen2_audio_30s", "glmga"}  # padded for vLLM; glm4v behind another processor
    assert set(TINY) - set(RELEASED) == same


@every_model
def test_switches_are_those_of_the_released_model(name: str) -> None:
    model = build(name)[0]
    wanted, text = RELEASED[name].switches, model.config.get_text_config()
    own, usual = text.to_dict(), type(text)().to_dict()
    assert set(wanted) <= set(own)
    for key, default in usual.items():
        if key in NAMING or key in SMALLER or not is_switch(default, own.get(key)):
            continue
        assert own.get(key) == wanted.get(key, default), key
    tied = lm_head(model).weight is model.get_input_embeddings().weight
    assert tied == RELEASED[name].tied


def is_switch(*values: Any) -> bool:
    return any(isinstance(value, bool | str | float) for value in values)


@every_model
def test_sizes_compare_as_the_released_models_do(name: str) -> None:
    text, wanted = build(name)[0].config.get_text_config(), RELEASED[name]
    layer = text.per_layer_config[narrow(text)]
    heads, keys = layer.num_attention_heads, layer.num_key_value_heads
    size = getattr(layer, "head_dim", None) or text.hidden_size // heads
    assert some(keys, heads) == some(wanted.key_heads, wanted.heads)
    assert sign(heads * size, text.hidden_size) == sign(
        wanted.heads * wanted.head_size, wanted.hidden
    )
    assert bool(getattr(text, "num_kv_shared_layers", 0)) == wanted.shared_layers
    assert bool(getattr(text, "hidden_size_per_layer_input", 0)) == wanted.layer_inputs


@every_model
def test_layers_follow_each_other_as_in_the_released_model(name: str) -> None:
    text, wanted = build(name)[0].config.get_text_config(), RELEASED[name]
    kinds = kinds_of(text)
    found = "".join(kind[0] for kind in kinds)
    assert wanted.layers in found
    assert set(found) == set(wanted.layers)
    check_wide_layers(text, kinds, wanted)


def check_wide_layers(text: Any, kinds: list[str], wanted: Released) -> None:
    """Full layers have their own size and number of key heads where the released ones do."""
    if wanted.wide_head_size is None:
        assert wanted.wide_key_heads is None
        return
    full = text.per_layer_config[kinds.index("full_attention")]
    other = text.per_layer_config[narrow(text)]
    assert full.head_dim * wanted.head_size == other.head_dim * wanted.wide_head_size
    ratio = sign(full.num_key_value_heads, other.num_key_value_heads)
    assert ratio == sign(wanted.wide_key_heads or wanted.key_heads, wanted.key_heads)


@every_model
def test_some_of_the_experts_are_chosen(name: str) -> None:
    text, wanted = build(name)[0].config.get_text_config(), RELEASED[name]
    experts = getattr(text, "num_experts", None) or getattr(text, "n_routed_experts", None)
    if wanted.experts is None:
        assert not experts
        return
    chosen = getattr(text, "top_k_experts", None) or text.num_experts_per_tok
    assert 1 < chosen < experts


def kinds_of(text: Any) -> list[str]:
    return getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers


def narrow(text: Any) -> int:
    """A layer with a sliding window, where there is one."""
    kinds = kinds_of(text)
    return kinds.index("sliding_attention") if "sliding_attention" in kinds else 0


def some(part: int, whole: int) -> str:
    """One, some or all of them."""
    return "one" if part == 1 else "all" if part == whole else "some"


def sign(a: int, b: int) -> int:
    return (a > b) - (a < b)
