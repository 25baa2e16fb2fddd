"""Weights fit vLLM's modules by what those look like, not by what the model is called."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmrl.engines.vllm.server.weight_names import adapted_name, as_read
from mmrl.engines.vllm.thinker import named, thinker_of, whole_configuration
from tests.families.tiny import build


class Prefix:
    """As vLLM's WeightsMapper: the front of a name by another; None is left out."""

    def _map_name(self, name: str) -> str | None:
        if name.startswith("talker."):
            return None
        return name.replace("model.vision_tower.", "vision_tower.", 1)


def tree(inner: dict[str, nn.Module]) -> Any:
    """A model with a tower that holds these modules."""
    model = nn.Module()
    model.vision_tower = nn.ModuleDict(inner)
    model.hf_to_vllm_mapper = Prefix()  # type: ignore[assignment]
    return model


def names(model: Any, *given: str) -> list[str]:
    return [name for name, _ in as_read(model, [(name, torch.zeros(2)) for name in given])]


def test_a_lone_level_is_put_in_front_of_what_is_not_there_without_it() -> None:
    model = tree({"vision_model": nn.ModuleDict({"embeddings": nn.Linear(2, 2)})})
    short, whole = "model.vision_tower.embeddings.weight", "vision_tower.vision_model.embeddings."
    assert names(model, short) == [f"{whole}weight"]
    there = "model.vision_tower.vision_model.embeddings.weight"
    assert names(model, there) == [there]
    assert names(model, "talker.weight") == ["talker.weight"]


class Renames:
    """As vLLM's WeightsMapper with a part of a name by another."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new

    def get_rename_mapper(self) -> Renames:
        return self

    def _map_name(self, name: str) -> str:
        return name.replace(self._old, self._new, 1)


def test_an_adapters_tensor_has_the_name_of_vllms_module() -> None:
    """Also where only a class further in renames it, or none does; a lost one keeps the first."""
    model = nn.Module()
    model.language = nn.ModuleDict({"layers": nn.ModuleDict({"0": nn.Module()})})
    names = "language.layers.0.short_conv.in_proj", "language.layers.0.mlp.w1", "language.lost"
    plain = [f"{name}.lora_A.weight" for name in names]
    known = set(names[:2])
    assert [adapted_name(model, name, known) for name in plain] == plain
    model.hf_to_vllm_mapper = Renames("model.language.", "language.")  # type: ignore[assignment]
    model.language.hf_to_vllm_mapper = Renames(".conv.", ".short_conv.")  # type: ignore[assignment]
    files = [f"model.{name.replace('short_', '')}" for name in plain]
    assert [adapted_name(model, name, known) for name in files] == plain


def test_nothing_is_guessed() -> None:
    """Where two levels could be meant, or none has the part, vLLM shall say that it is unknown."""
    part = {"embeddings": nn.Linear(2, 2)}
    two = tree({"one": nn.ModuleDict(dict(part)), "two": nn.ModuleDict(dict(part))})
    name = "model.vision_tower.embeddings.weight"
    assert names(two, name) == [name]
    other = tree({"one": nn.ModuleDict({"head": nn.Linear(2, 2)})})
    assert names(other, name) == [name]


def test_fused_experts_are_turned_where_the_class_says_so() -> None:
    weight = torch.arange(24.0).reshape(2, 3, 4)
    name = "layers.0.mlp.experts.gate_up_proj"
    model = nn.Module()
    model.experts = nn.Module()
    ((_, same),) = as_read(model, [(name, weight)])
    assert torch.equal(same, weight)
    model.experts.is_fused_checkpoint_transposed = True
    (_, turned), (_, other) = as_read(model, [(name, weight), ("layers.0.mlp.gate.weight", weight)])
    assert torch.equal(turned, weight.transpose(1, 2))
    assert torch.equal(other, weight)


def test_a_thinker_stands_in_its_whole_models_configuration() -> None:
    from transformers import AutoConfig

    model, _ = build("qwen3_omni")
    folder = whole_configuration(model.config)
    assert folder is not None
    whole = AutoConfig.from_pretrained(folder)
    assert whole.architectures == ["Qwen3OmniMoeForConditionalGeneration"]
    inner = thinker_of(whole)
    assert inner.model_type == model.config.model_type
    assert inner.text_config.hidden_size == model.config.text_config.hidden_size
    weights = [("lm_head.weight", torch.zeros(1))]
    assert [n for n, _ in named(whole, weights)] == ["thinker.lm_head.weight"]
    assert [n for n, _ in named(model.config, weights)] == ["lm_head.weight"]
    assert whole_configuration(build("qwen2_5_vl")[0].config) is None
