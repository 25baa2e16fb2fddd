"""What is on which device: this machine's devices, and what each process of the run puts there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch

from mmrl.config import RunConfig
from mmrl.doctor.memory import GIB, STAGES, Place, Plan, Sharding, sharding_of
from mmrl.policy.linears import onednn_is_faster


def devices() -> list[str]:
    """A line a device of this machine, with its memory."""
    found = [
        f"cuda:{i} {torch.cuda.get_device_name(i)}, {capacity(i) / GIB:.0f} GiB"
        for i in range(torch.cuda.device_count())
    ]
    cpu = f"cpu, {os.cpu_count()} cores, {capacity(None) / GIB:.0f} GiB"
    return [*found, cpu + "; float32 linears by oneDNN" * onednn_is_faster()]


def capacity(device: int | None) -> int:
    """Bytes of a CUDA device, or of the machine."""
    if device is not None:
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def placement(config: RunConfig, found: Plan, processes: int, nodes: int) -> Iterator[str]:
    """A line a place: what each process of the run has there."""
    sharding = sharding_of(config)
    counted = "1 process" if processes == 1 else f"{processes} processes"
    machines = "" if nodes == 1 else f" on {nodes} machines"
    where = "a GPU each, or all the cpu where there is none" if processes > 1 else "one device"
    yield f"{counted}{machines}, {where}; {STAGES[sharding.stage]}"
    trained = "base and adapters" if config.model.lora else "weights"
    yield f"device   {', '.join(_kept(sharding, 'device', trained))}, activations"
    elsewhere: tuple[tuple[Place, int], ...] = (("host", found.host), ("disk", found.disk))
    for place, size in elsewhere:
        if size:
            also = ["gradients"] if place == "host" and sharding.optimizer != "device" else []
            also += ["vLLM's weights while it sleeps"] if place == "host" and found.sleeps else []
            also += ["processed media"] if place == "host" and found.processed else []
            kept = [*_kept(sharding, place, trained), *also]
            yield f"{place:8} {', '.join(kept)}: {size / GIB:.2f} GiB a process"
    yield f"rollout  {_engine(config)}"
    yield f"scoring  {config.rollout.scoring_workers} worker processes on the cpu, for each process"


def _kept(sharding: Sharding, place: Place, trained: str) -> list[str]:
    named = {trained: sharding.parameters, "optimiser": sharding.optimizer}
    return [part for part, where in named.items() if where == place]


def _engine(config: RunConfig) -> str:
    match config.rollout.engine:
        case "hf":
            return "the policy's own weights, on its device"
        case "hf_copy":
            return "a copy of the weights, on the policy's device"
        case "targets":
            return "nothing is sampled"
        case "vllm":
            return "vLLM on the policy's device, with weights of its own"
    return f"{config.rollout.engine}, on devices of its own, which are not counted here"
