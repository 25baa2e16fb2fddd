"""What a run needs before it starts: packages, devices, and the memory of every stage.

The model is built without weights, so that a 72B model is planned for on a laptop. Sizes are of
one process; sharding divides what its stage shards.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig

from mmrl import plugins
from mmrl.algorithms.compose import compose
from mmrl.config import RunConfig
from mmrl.errors import UserError
from mmrl.packing import default_budget
from mmrl.policy import lora
from mmrl.policy.family import Declaration
from mmrl.policy.logprobs import CHUNK_TOKENS
from mmrl.policy.policy import DTYPES, family_name, model_folder

PACKAGES = {
    "torch": "",
    "torchvision": "",
    "transformers": "",
    "safetensors": "",
    "math-verify": "",
    "qwen-vl-utils": "qwen",
    "torchcodec": "video",
    "av": "video",
    "decord": "video",
    "torchaudio": "audio",
    "soundfile": "audio",
    "datasets": "data",
    "peft": "lora",
    "bitsandbytes": "qlora",
    "deepspeed": "deepspeed",
    "vllm": "vllm",
}
"""Distributions by the extra that brings them; an empty one is always installed."""

GIB = 1 << 30


@dataclass(frozen=True)
class Shape:
    """Sizes of a model: parameters by role, and what a token costs in a language layer."""

    parameters: int
    tower_parameters: int
    adapter_parameters: int
    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    vocabulary: int


@dataclass(frozen=True)
class Plan:
    """Bytes of one process. Weights, reference and optimiser stay; the rest comes and goes.

    `gathered` are the weights that a sharded run makes whole to roll out, to sync and to save.
    """

    weights: int
    reference: int
    optimizer: int
    gradients: int
    activations: int
    logits: int
    cache: int
    gathered: int

    @property
    def stays(self) -> int:
        return self.weights + self.reference + self.optimizer

    @property
    def peak(self) -> int:
        """The larger of the two stages that alternate, on top of what stays."""
        update = self.gradients + self.activations + self.logits
        return self.stays + max(update, self.cache + self.gathered)


def packages() -> list[str]:
    """A line a package: its version, or the extra that installs it."""
    lines = [f"python {sys.version.split()[0]}"]
    for name, extra in PACKAGES.items():
        try:
            lines.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{name} absent: pip install 'mmrl{f'[{extra}]' if extra else ''}'")
    return lines


def devices() -> list[str]:
    """A line a device of this machine, with its memory."""
    found = [
        f"cuda:{i} {torch.cuda.get_device_name(i)}, {_capacity(i) / GIB:.0f} GiB"
        for i in range(torch.cuda.device_count())
    ]
    return found or [f"cpu, {os.cpu_count()} cores, {_capacity(None) / GIB:.0f} GiB"]


def _capacity(device: int | None) -> int:
    if device is not None:
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def measure(config: RunConfig) -> Shape:
    """Sizes of the configured model, from its config.json alone."""
    path = model_folder(config.model.path)
    folder = Path(lora.base_of(path) or path)
    if not (folder / "config.json").is_file():
        raise UserError(f"no model at {folder}: model.path must hold a transformers config.json")
    remote = config.model.trust_remote_code
    settings = AutoConfig.from_pretrained(folder, trust_remote_code=remote, local_files_only=True)
    name = family_name(settings.model_type, config.model.family)
    declaration: Declaration = plugins.load("family", name).DECLARATION
    loader = getattr(transformers, declaration.loader)
    with torch.device("meta"):
        make = getattr(loader, "from_config", None) or loader._from_config
        model: Any = make(settings)
    return shape_of(model, declaration, config)


def shape_of(model: Any, declaration: Declaration, config: RunConfig) -> Shape:
    """Sizes of a model, with weights or without."""
    text = model.config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    experts = getattr(text, "num_experts_per_tok", None) or 1
    inner = getattr(text, "moe_intermediate_size", None) or text.intermediate_size
    towers = tuple(f"{tower}." for tower in declaration.towers)
    named = dict(model.named_parameters())
    return Shape(
        parameters=sum(p.numel() for p in named.values()),
        tower_parameters=sum(p.numel() for n, p in named.items() if f"{n}.".startswith(towers)),
        adapter_parameters=_adapter_parameters(model, declaration, config),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=inner * experts,
        queries=heads * width,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * width,
        vocabulary=text.vocab_size,
    )


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


def plan(config: RunConfig, shape: Shape, processes: int) -> Plan:
    """Predict one process's memory; the update's and the rollout's stages are at their limits."""
    width = DTYPES[config.model.dtype].itemsize
    adapters = config.model.lora
    trained = shape.adapter_parameters or shape.parameters
    if config.model.freeze_tower and adapters is None:
        trained -= shape.tower_parameters
    stage = _stage(config)
    held = {"none": float(width), "nf4": 0.55, "int8": 1.05}[
        adapters.quantize if adapters else "none"
    ]
    # Adapters are float32; a sharded optimiser keeps float32 weights beside 16-bit ones.
    own = 4 if adapters else width
    master = 4 if stage and own < 4 else 0
    moments = 8 if stage else 2 * own
    copied = "reference" in compose(config.algorithm).needs and adapters is None
    return Plan(
        weights=int(shape.parameters * held) // (processes if stage == 3 else 1)
        + shape.adapter_parameters * own,
        reference=shape.parameters * width // (processes if stage == 3 else 1) if copied else 0,
        optimizer=trained * (moments + master) // (processes if stage else 1),
        gradients=trained * own // (processes if stage >= 2 else 1),
        activations=activations(config, shape, width),
        # Logits, scaled, their log-softmax, its exponential and a gradient, in float32.
        logits=5 * 4 * CHUNK_TOKENS * shape.vocabulary,
        cache=_cache(config, shape, width),
        gathered=int(shape.parameters * held) if stage == 3 else 0,
    )


def _stage(config: RunConfig) -> int:
    if config.trainer.backend == "local" or config.trainer.deepspeed is None:
        return 0
    text = config.trainer.deepspeed.read_text(encoding="utf-8")
    return int(json.loads(text)["zero_optimization"]["stage"])


def activations(config: RunConfig, shape: Shape, width: int) -> int:
    """Bytes that one micro-batch keeps for its backward pass.

    A layer keeps a token's residual twice (before each norm) in float32 and three times in its own
    type, the norms' factors, queries, keys and values with their rotations and padded copies, the
    attention's output twice, and the inner width four times (gate, its activation, up, product).
    """
    layer = (
        (3 * width + 2 * 4) * shape.hidden
        + 5 * width * shape.queries
        + 8 * width * shape.keys
        + 4 * width * shape.inner
    )
    device = torch.device("cuda" if config.model.dtype != "float32" else "cpu")
    tokens = config.trainer.tokens_per_micro_batch or default_budget(device)
    if not config.model.gradient_checkpointing:
        return tokens * shape.layers * layer
    return tokens * (shape.layers * width * shape.hidden + layer)


def _cache(config: RunConfig, shape: Shape, width: int) -> int:
    """Bytes of keys and values of a decoding batch: each prompt's once, each response's own."""
    rollout = config.rollout
    group = int(config.algorithm.get("group_size", 8))
    prompts = max(rollout.max_sequences // max(group, 1), 1)
    tokens = (
        rollout.max_sequences * rollout.max_new_tokens + prompts * config.model.max_prompt_tokens
    )
    return tokens * shape.layers * 2 * shape.keys * width


def advice(config: RunConfig, found: Plan) -> str:
    """The setting that helps most with the largest part."""
    sizes = {
        "cache": found.cache,
        "activations": found.activations,
        "optimizer": found.optimizer + found.gradients,
        "weights": found.weights + found.reference,
        "gathered": found.gathered,
    }
    largest = max(sizes, key=lambda part: sizes[part])
    if largest == "cache":
        return "lower rollout.max_sequences or rollout.max_new_tokens"
    if largest == "activations":
        if not config.model.gradient_checkpointing:
            return "set model.gradient_checkpointing=true, or lower trainer.tokens_per_micro_batch"
        return "lower trainer.tokens_per_micro_batch"
    if largest == "gathered":
        return (
            "the whole weights must fit beside the rest once: take a larger device, or zero2.json"
        )
    if config.model.lora is None:
        return "set model.lora, or trainer.backend=deepspeed with zero3.json on more processes"
    return "set model.lora.quantize=nf4, or trainer.backend=deepspeed with zero3.json"


def report(
    config: RunConfig, processes: int = 1, capacity_gib: float | None = None
) -> Sequence[str]:
    """The plan in lines; raises UserError naming the setting to change where it cannot fit."""
    shape = measure(config)
    found = plan(config, shape, processes)
    capacity = _capacity(0 if torch.cuda.is_available() else None)
    if capacity_gib is not None:
        capacity = int(capacity_gib * GIB)
    trained = shape.adapter_parameters or shape.parameters
    lines = [
        f"{shape.parameters / 1e9:.3g} B parameters ({shape.tower_parameters / 1e9:.3g} B in "
        f"towers), {trained / 1e9:.3g} B of them trained, {processes} processes",
        *(f"{name:12} {size / GIB:9.2f} GiB" for name, size in vars(found).items()),
        f"{'peak':12} {found.peak / GIB:9.2f} GiB of {capacity / GIB:.0f} GiB a process",
    ]
    if found.peak > 0.95 * capacity:
        raise UserError(
            f"{found.peak / GIB:.1f} GiB a process do not fit into {capacity / GIB:.1f} GiB: "
            + advice(config, found)
        )
    return lines
