"""Weights sent from a trainer to the workers of all servers at once, over NCCL or gloo.

Both sides open a process group of its own for every broadcast, apart from all others of their
processes, so that a server that comes or goes changes nothing but the next group's size.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch._C import _distributed_c10d as c10d

SENDER = 0


def announcement(
    weights: Mapping[str, Tensor], host: str, port: int, first_rank: int, size: int, seconds: float
) -> dict[str, Any]:
    """What a server must know to take part: its workers are the ranks from `first_rank`.

    Dtypes and shapes of the weights are in it; `seconds` is how long a process waits for another.
    """
    return {
        "host": host,
        "port": port,
        "first_rank": first_rank,
        "size": size,
        "seconds": seconds,
        "backend": "nccl" if next(iter(weights.values())).is_cuda else "gloo",
        "tensors": [
            [n, str(w.dtype).removeprefix("torch."), list(w.shape)] for n, w in weights.items()
        ],
    }


def send(weights: Mapping[str, Tensor], said: Mapping[str, Any]) -> None:
    """Send weights, shapes as announced; raises RuntimeError where one does not take part."""
    group = _join(said, SENDER)
    for weight in weights.values():
        _broadcast(group, weight.detach().contiguous())
    _leave(group, said)


def receive(said: Mapping[str, Any], rank: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights by name, in the shapes announced, on the device that they travel to."""
    group = _join(said, rank)
    device = "cuda" if said["backend"] == "nccl" else "cpu"
    for name, dtype, shape in said["tensors"]:
        weight = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
        _broadcast(group, weight)
        yield name, weight
    _leave(group, said)


def _join(said: Mapping[str, Any], rank: int) -> Any:
    timeout, size = timedelta(seconds=said["seconds"]), said["size"]
    store = c10d.TCPStore(said["host"], said["port"], size, rank == SENDER, timeout)
    kind: Any = c10d.ProcessGroupNCCL if said["backend"] == "nccl" else c10d.ProcessGroupGloo
    return kind(store, rank, size, timeout)


def _broadcast(group: Any, tensor: Tensor) -> None:
    options = c10d.BroadcastOptions()
    options.rootRank, options.rootTensor = SENDER, 0
    group.broadcast([tensor], options).wait()


def _leave(group: Any, said: Mapping[str, Any]) -> None:
    """Let go of a group; what NCCL was asked for is only under way by now."""
    if said["backend"] == "nccl":
        torch.cuda.current_stream().synchronize()
        group.shutdown()


def own_address(host: str) -> str:
    """The address under which `host` reaches this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing
        address: str = probe.getsockname()[0]
    return address
