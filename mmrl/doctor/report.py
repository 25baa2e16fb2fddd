"""The plan of a run in lines; what cannot fit is refused with the setting to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mmrl.config import RunConfig
from mmrl.doctor import packages
from mmrl.doctor.counts import Counts, count
from mmrl.doctor.memory import GIB, Plan, plan, token_budget, trained_parameters
from mmrl.doctor.placement import capacity, placement
from mmrl.doctor.shape import Shape, measure
from mmrl.errors import UserError
from mmrl.rewards.thoughts import note_of
from mmrl.train.phases import phases_of

FULL = 0.95
"""Share of a device that a plan may fill."""


def report(
    config: RunConfig,
    processes: int = 1,
    capacity_gib: float | None = None,
    nodes: int = 1,
    host_gib: float | None = None,
) -> Sequence[str]:
    """The plan of every phase; raises UserError naming the setting to change where one cannot fit.

    Memory is of one process's device and of one machine; what is not given is this machine's.
    """
    packages.check(config)
    host = int(host_gib * GIB) if host_gib is not None else capacity(None)
    host = host * nodes // processes
    here = capacity(0) if torch.cuda.is_available() else host
    device = int(capacity_gib * GIB) if capacity_gib is not None else here
    phases = phases_of(config)
    lines: list[str] = []
    for phase in phases:
        lines += [f"phase '{phase.name}'"] if len(phases) > 1 else []
        lines += _phase(phase.config, processes, nodes, device, host)
    return lines


def _phase(config: RunConfig, processes: int, nodes: int, device: int, host: int) -> Iterator[str]:
    shape = measure(config)
    counts = count(config, shape.towers)
    found = plan(config, shape, counts, processes, device)
    trained = trained_parameters(config, shape)
    yield (
        f"{shape.parameters / 1e9:.3g} B parameters ({shape.tower_parameters / 1e9:.3g} B in "
        f"towers), {trained / 1e9:.3g} B of them trained"
    )
    yield from placement(config, found, processes, nodes)
    yield f"data     {counts.line()}"
    if counts.opening:
        yield f"thoughts {note_of(counts.opening)}"
    yield from _table(config, found, counts, device)
    refuse(config, shape, found, device, host)


def _table(config: RunConfig, found: Plan, counts: Counts, device: int) -> Iterator[str]:
    """What stays, and the two stages that alternate on top of it, in GiB of one process."""
    budget = token_budget(config)
    towers = sum(counts.positions) * budget
    rollout = config.rollout
    notes = {
        "activations": f"{budget} tokens a micro-batch",
        "media": f"{towers:.0f} positions in the towers, or features that are kept",
        "cache": f"at most {rollout.max_sequences} answers of {rollout.max_new_tokens} tokens",
        "gathered": "weights made whole",
        "engine": "a copy of the weights"
        if rollout.engine == "hf_copy"
        else "vLLM's, with its cache",
    }
    stages = {
        "stays": ("weights", "reference", "critic", "optimizer"),
        "update": ("gradients", "activations", "media", "logits"),
        "rollout": ("cache", "gathered", "engine"),
    }
    for stage, parts in stages.items():
        yield f"{stage:8} {getattr(found, stage) / GIB:9.2f} GiB"
        for part in parts:
            size = getattr(found, part)
            note = f"  {notes[part]}" if part in notes and size else ""
            yield f"  {part:12} {size / GIB:9.2f}{note}"
    yield f"{'peak':8} {found.peak / GIB:9.2f} GiB of {device / GIB:.0f} GiB a process"


def refuse(config: RunConfig, shape: Shape, found: Plan, device: int, host: int) -> None:
    """Raise UserError, with the setting to change, where a plan does not fit."""
    if found.sleeps and found.engine < 2 * shape.parameters:
        raise UserError(
            f"vLLM's {found.engine / GIB:.1f} GiB do not hold its weights: raise "
            "rollout.vllm.gpu_memory_utilization"
        )
    if found.peak > FULL * device:
        raise UserError(
            f"{found.peak / GIB:.1f} GiB a process do not fit into {device / GIB:.1f} GiB: "
            + advice(config, found)
        )
    if found.host > FULL * host:
        raise UserError(
            f"{found.host / GIB:.1f} GiB a process do not fit into its share of the host's memory, "
            f"{host / GIB:.1f} GiB: take zero3_nvme.json, or more machines"
        )


def advice(config: RunConfig, found: Plan) -> str:
    """The setting that helps most with the largest part of the larger stage."""
    parts = {"weights": found.weights + found.reference, "optimizer": found.optimizer}
    if found.update >= found.rollout:
        parts["optimizer"] += found.gradients
        parts |= {"activations": found.activations, "media": found.media, "logits": found.logits}
    else:
        parts |= {"cache": found.cache, "gathered": found.gathered, "engine": found.engine}
    parts["critic"] = found.critic
    largest = max(parts, key=lambda part: parts[part])
    return _FIXED[largest] if largest in _FIXED else _CHOSEN[largest](config)


def _on_engine(config: RunConfig) -> str:
    if config.rollout.engine == "hf_copy":
        return "take rollout.engine=hf, or engines on devices of their own"
    return "lower rollout.vllm.gpu_memory_utilization"


def _on_activations(config: RunConfig) -> str:
    if not config.model.gradient_checkpointing:
        return "set model.gradient_checkpointing=true, or lower trainer.tokens_per_micro_batch"
    return "lower trainer.tokens_per_micro_batch"


def _on_media(config: RunConfig) -> str:
    if not config.model.gradient_checkpointing:
        return _on_activations(config)
    return "set model.freeze_tower=true, or lower trainer.tokens_per_micro_batch"


def _on_weights(config: RunConfig) -> str:
    if config.model.lora is None:
        return "set model.lora, or trainer.backend=deepspeed with zero3.json on more processes"
    return "set model.lora.quantize=nf4, or trainer.backend=deepspeed with zero3.json"


_FIXED = {
    "logits": "the vocabulary's logits alone do not fit: take a larger device",
    "critic": "set critic.trunk=shared",
    "cache": "lower rollout.max_sequences or rollout.max_new_tokens",
    "gathered": "the whole weights must fit beside the rest once: take a larger device, or "
    "zero2.json",
}
_CHOSEN = {
    "weights": _on_weights,
    "optimizer": _on_weights,
    "activations": _on_activations,
    "media": _on_media,
    "engine": _on_engine,
}
