"""The plan of a run in lines; what cannot fit is refused with the setting to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mmrl.config import RunConfig
from mmrl.doctor import packages
from mmrl.doctor.counts import Counts, count
from mmrl.doctor.memory import GIB, Plan, plan, trained_parameters
from mmrl.doctor.placement import capacity, placement
from mmrl.doctor.shape import Shape, measure
from mmrl.errors import ConfigError
from mmrl.rewards.thoughts import note_of
from mmrl.train.phases import Phase, phases_of

FULL = 0.95
"""Share of a device that a plan may fill."""


@dataclass(frozen=True)
class Planned:
    """A phase's plan and what it was made for; `device` and `host` are bytes of a process.

    `plan` is made for answers at their limit, `short` for those of a token. `one_memory`: the
    device is the host.
    """

    phase: Phase
    shape: Shape
    counts: Counts
    plan: Plan
    short: Plan
    one_memory: bool
    processes: int
    nodes: int
    device: int
    host: int

    def lines(self) -> Iterator[str]:
        """The plan for people."""
        trained = trained_parameters(self.phase.config, self.shape)
        yield (
            f"{self.shape.parameters / 1e9:.3g} B parameters ("
            f"{self.shape.tower_parameters / 1e9:.3g} B in towers), {trained / 1e9:.3g} B of them "
            "trained"
        )
        yield from placement(self.phase.config, self.plan, self.processes, self.nodes)
        yield f"data     {self.counts.line()}"
        if self.counts.opening:
            yield f"thoughts {note_of(self.counts.opening)}"
        yield from _table(self)

    def figures(self) -> dict[str, Any]:
        """The plan as data: parameters, and bytes of a process."""
        totals = {name: getattr(self.plan, name) for name in ("stays", "update", "rollout", "peak")}
        return {
            "phase": self.phase.name,
            "parameters": self.shape.parameters,
            "trained": trained_parameters(self.phase.config, self.shape),
            "data": asdict(self.counts),
            "bytes": {**asdict(self.plan), **totals},
            "process_bytes": self.peak(self.plan),
            "process_bytes_of_short_answers": self.peak(self.short),
            "device_bytes": self.device,
            "host_bytes": self.host,
        }

    def peak(self, found: Plan) -> int:
        """Bytes of a plan that the device must have."""
        return found.peak + (found.host if self.one_memory else 0)

    def refuse(self) -> None:
        """Raise ConfigError where the phase cannot fit."""
        most = max(self.plan, self.short, key=self.peak)
        device = self.device - (most.host if self.one_memory else 0)
        refuse(self.phase.config, self.shape, most, device, self.host)


def plans(
    config: RunConfig,
    processes: int = 1,
    capacity_gib: float | None = None,
    nodes: int = 1,
    host_gib: float | None = None,
) -> list[Planned]:
    """Plan every phase of a run.

    Memory is of one process's device and of one machine; what is not given is this machine's.
    """
    packages.check(config)
    host = int(host_gib * GIB) if host_gib is not None else capacity(None)
    host = host * nodes // processes
    here = capacity(0) if torch.cuda.is_available() else host
    device = int(capacity_gib * GIB) if capacity_gib is not None else here
    found = []
    for phase in phases_of(config):
        shape = measure(phase.config)
        counts = count(phase.config, shape.towers)
        given = phase.config, shape, counts, processes, device
        one_memory = capacity_gib is None and not torch.cuda.is_available()
        found.append(
            Planned(
                phase,
                shape,
                counts,
                plan(*given),
                plan(*given, answer=1),
                one_memory,
                processes,
                nodes,
                device,
                host,
            )
        )
    return found


def lines_of(found: Sequence[Planned]) -> list[str]:
    """The plans of all phases for people, under their names where there are several."""
    lines: list[str] = []
    for planned in found:
        lines += [f"phase '{planned.phase.name}'"] if len(found) > 1 else []
        lines += planned.lines()
    return lines


def _table(planned: Planned) -> Iterator[str]:
    """What stays, and the two stages that alternate on top of it, in GiB of one process."""
    config, found = planned.phase.config, planned.plan
    rollout = config.rollout
    notes = {
        "activations": f"{found.batch.tokens} tokens a micro-batch",
        "media": f"{sum(found.batch.positions):.0f} positions in the towers, or kept features",
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
    if planned.one_memory:
        yield f"{'host':8} {found.host / GIB:9.2f} GiB"
    peak, short = (planned.peak(each) / GIB for each in (found, planned.short))
    yield f"{'peak':8} {peak:9.2f} GiB of {planned.device / GIB:.0f} GiB a process"
    if short > peak:
        yield f"{'':8} {short:9.2f} GiB where answers are short: more prompts in a micro-batch"


def refuse(config: RunConfig, shape: Shape, found: Plan, device: int, host: int) -> None:
    """Raise ConfigError, with the setting to change, where a plan does not fit."""
    if found.sleeps and found.engine < 2 * shape.parameters:
        raise ConfigError(
            f"vLLM's {found.engine / GIB:.1f} GiB do not hold its weights: raise "
            "rollout.vllm.gpu_memory_utilization"
        )
    if found.peak > FULL * device:
        raise ConfigError(
            f"{found.peak / GIB:.1f} GiB a process do not fit into {device / GIB:.1f} GiB: "
            + advice(config, found)
        )
    if found.host > FULL * host:
        raise ConfigError(
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
    "gathered": "an engine without weights of its own needs the whole ones once: take "
    "rollout.engine=vllm_server with servers on other devices, or zero2.json",
}
_CHOSEN = {
    "weights": _on_weights,
    "optimizer": _on_weights,
    "activations": _on_activations,
    "media": _on_media,
    "engine": _on_engine,
}
