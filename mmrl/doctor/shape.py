"""Sizes of a model from its config.json: it is built without weights, so a laptop plans for 72B."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from mmrl import plugins
from mmrl.config import RunConfig
from mmrl.engines.vllm.adapter import objection
from mmrl.policy import lora
from mmrl.policy.families.generic_sharing import expected
from mmrl.policy.family import Declaration
from mmrl.policy.model_folder import check_folder
from mmrl.policy.policy import family_name, warn_of_generic


@dataclass(frozen=True)
class Tower:
    """A media encoder: what it makes a position of, and what a position costs.

    `elements` of its input (pixel values, mel bins) make one position; `linears` are the inputs and
    outputs of all its linears, `hidden` is the width between its `layers`. One of sounds that works
    by `windows` leaves the input's padding out.
    """

    heard: bool
    windows: bool
    elements: int
    linears: int
    layers: int
    hidden: int


@dataclass(frozen=True)
class Shape:
    """Sizes of a model: parameters by role, and what a token costs in a language layer.

    Tower and projector have their own parameters each, wherever one stands inside the other.

    `adapter_alone` says that the engine gets nothing but the adapter after a step. `norms` are a
    layer's over its width, `head_norms` whether it has some of queries and keys.
    """

    parameters: int
    tower_parameters: int
    projector_parameters: int
    adapter_parameters: int
    adapter_alone: bool
    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    vocabulary: int
    towers: tuple[Tower, ...]
    norms: int = 2
    head_norms: bool = False


def weightless(config: RunConfig) -> tuple[Any, Declaration]:
    """The configured model on the meta device, and its family's declaration."""
    _, folder = check_folder(config.model, processor=False)
    remote = config.model.trust_remote_code
    settings = AutoConfig.from_pretrained(folder, trust_remote_code=remote, local_files_only=True)
    name = family_name(settings.model_type, config.model.family)
    declaration: Declaration = plugins.load("family", name).DECLARATION
    loader = declaration.loader_of(settings)
    with torch.device("meta"):
        make = getattr(loader, "from_config", None) or loader._from_config
        model = make(settings)
    if config.model.family is None:
        warn_of_generic(name, settings.model_type, expected(model))
    return model, declaration


def measure(config: RunConfig) -> Shape:
    """Sizes of the configured model."""
    model, declaration = weightless(config)
    return shape_of(model, declaration, config)


def shape_of(model: Any, declaration: Declaration, config: RunConfig) -> Shape:
    """Sizes of a model, with weights or without."""
    text = model.config.get_text_config()
    queries, keys = _widths(text)
    experts = getattr(text, "num_experts_per_tok", None) or 1
    inner = getattr(text, "moe_intermediate_size", None) or text.intermediate_size
    named = dict(model.named_parameters())
    media, projector = (
        sum(p.numel() for n, p in named.items() if f"{n}.".startswith(_prefixes(names)))
        for names in (declaration.towers, declaration.projectors)
    )
    return Shape(
        parameters=sum(p.numel() for p in named.values()),
        tower_parameters=media - projector,
        projector_parameters=projector,
        adapter_parameters=_adapter_parameters(model, declaration, config),
        adapter_alone=_adapter_alone(model.config, config),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=inner * experts,
        queries=queries,
        keys=keys,
        vocabulary=text.vocab_size,
        towers=tuple(_towers(model, declaration)),
        norms=_norms(named, declaration, text),
        head_norms=any(name.endswith("q_norm.weight") for name in named),
    )


def _norms(named: Mapping[str, nn.Parameter], declaration: Declaration, text: Any) -> int:
    """Norms over the width of a language layer; one more stands behind the last layer."""
    media = _prefixes((*declaration.towers, *declaration.projectors))
    found = sum(
        "norm" in name and p.shape == (text.hidden_size,)
        for name, p in named.items()
        if not name.startswith(media)
    )
    return max(round((found - 1) / int(text.num_hidden_layers)), 1)


def _widths(text: Any) -> tuple[int, int]:
    """Of a layer's queries and of its keys, on average: layers differ, recurrent ones have none."""
    count = text.num_hidden_layers
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * count
    widths = []
    for layer, kind in zip(getattr(text, "per_layer_config", [text] * count), kinds, strict=True):
        heads = layer.num_attention_heads
        size = getattr(layer, "head_dim", None) or text.hidden_size // heads
        keys = getattr(layer, "num_key_value_heads", None) or heads
        attends = "attention" in kind and kind != "linear_attention"
        widths.append((heads * size, keys * size) if attends else (0, 0))
    queries, keys = (-(-sum(each) // count) for each in zip(*widths, strict=True))
    return queries, keys


def _prefixes(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}." for name in names)


def _adapter_alone(settings: Any, config: RunConfig) -> bool:
    """As far as can be said without vLLM, which knows its own classes of models."""
    if config.model.lora is None or not config.rollout.engine.startswith("vllm"):
        return False
    if config.rollout.adapter_sync == "merged":
        return False
    return objection(settings, config.model, torch.cuda.is_available()) is None


def _towers(model: Any, declaration: Declaration) -> Iterator[Tower]:
    """The media encoders; what only projects from them is added to the one before."""
    modules = dict(model.named_modules())
    for name in declaration.towers:
        found = list(modules[name].modules()) if name in modules else []
        lists = [m for m in found if isinstance(m, nn.ModuleList)]
        if not lists:
            continue
        convolutions = [m for m in found if isinstance(m, nn.modules.conv._ConvNd)]
        linears = [m for m in found if isinstance(m, nn.Linear)]
        yield Tower(
            heard="audio" in name,
            windows=getattr(modules[name], "n_window", None) is not None,
            elements=_elements(convolutions, linears[0]),
            linears=sum(m.in_features + m.out_features for m in linears),
            layers=max(map(len, lists)),
            hidden=convolutions[-1].out_channels if convolutions else linears[0].out_features,
        )


def _elements(convolutions: list[nn.modules.conv._ConvNd], first: nn.Linear) -> int:
    """How many elements of the input become one position: strides multiply."""
    if not convolutions:
        return first.in_features
    elements = convolutions[0].in_channels
    for convolution in convolutions:
        for stride in convolution.stride:
            elements *= stride
    return elements


def _adapter_parameters(model: Any, declaration: Declaration, config: RunConfig) -> int:
    wanted = config.model.lora
    if wanted is None:
        return 0
    modules = dict(model.named_modules())
    linears: Iterator[nn.Linear] = (
        modules[name] for name in lora.linear_targets(model, declaration, wanted)
    )
    fused = lora.fused_targets(model, declaration, wanted)
    weights = [p for n, p in model.named_parameters() if any(n.endswith(f) for f in fused)]
    sides = sum(linear.in_features + linear.out_features for linear in linears)
    sides += sum(p.shape[0] * (p.shape[1] + p.shape[2]) for p in weights)
    return wanted.rank * int(sides)
