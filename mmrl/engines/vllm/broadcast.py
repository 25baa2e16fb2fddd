"""Weights sent from a trainer to the workers of all servers at once, over NCCL or gloo.

Both sides open a process group of its own for every broadcast, apart from all others of their
processes, so that a server that comes or goes changes nothing but the next group's size. Weights
are sent a bucket at a time, each behind its names, dtypes and shapes.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch._C import _distributed_c10d as c10d

from mmrl.policy.buckets import Buckets

SENDER = 0


def announcement(
    device: torch.device, host: str, port: int, first_rank: int, size: int, seconds: float
) -> dict[str, Any]:
    """What a server must know to take part: its workers are the ranks from `first_rank`.

    Weights travel from `device`; `seconds` is how long a process waits for another.
    """
    return {
        "host": host,
        "port": port,
        "first_rank": first_rank,
        "size": size,
        "seconds": seconds,
        "backend": "nccl" if device.type == "cuda" else "gloo",
    }


@contextmanager
def joined(said: Mapping[str, Any], rank: int) -> Iterator[Exchange]:
    """Meet the others, and part from them when all is sent.

    Raises RuntimeError where one does not take part.
    """
    group = _join(said, rank)
    yield Exchange(group, torch.device("cuda" if said["backend"] == "nccl" else "cpu"))
    _leave(group, said)


@dataclass(frozen=True)
class Exchange:
    """A group of one sender and all who receive, with the device that weights travel to."""

    group: Any
    device: torch.device

    def send(self, weights: Buckets) -> None:
        """Send weights of any shapes, a bucket at a time, then that there are no more."""
        for bucket in weights:
            kinds = {n: (str(w.dtype).removeprefix("torch."), w.shape) for n, w in bucket.items()}
            self._send_text(json.dumps(kinds))
            for name in bucket:
                self._broadcast(bucket[name].detach().to(self.device).contiguous())
        self._send_text("")

    def receive(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights of one `send` by name, in the shapes that they were sent in."""
        while text := self._receive_text():
            for name, (dtype, shape) in json.loads(text).items():
                weight = torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)
                self._broadcast(weight)
                yield name, weight

    def _send_text(self, text: str) -> None:
        said = bytearray(text.encode())
        self._broadcast(torch.tensor([len(said)], device=self.device))
        if said:
            self._broadcast(torch.frombuffer(said, dtype=torch.uint8).to(self.device))

    def _receive_text(self) -> str:
        length = torch.zeros(1, dtype=torch.long, device=self.device)
        self._broadcast(length)
        said = torch.empty(int(length), dtype=torch.uint8, device=self.device)
        if len(said):
            self._broadcast(said)
        return bytes(said.tolist()).decode()

    def _broadcast(self, tensor: Tensor) -> None:
        options = c10d.BroadcastOptions()
        options.rootRank, options.rootTensor = SENDER, 0
        self.group.broadcast([tensor], options).wait()


def _join(said: Mapping[str, Any], rank: int) -> Any:
    timeout, size = timedelta(seconds=said["seconds"]), said["size"]
    store = c10d.TCPStore(said["host"], said["port"], size, rank == SENDER, timeout)
    kind: Any = c10d.ProcessGroupNCCL if said["backend"] == "nccl" else c10d.ProcessGroupGloo
    return kind(store, rank, size, timeout)


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
