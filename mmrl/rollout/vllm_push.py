"""The policy's weights on their way to servers: as a file that all of them see, or by broadcast."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from safetensors.torch import save_file
from torch import Tensor

from mmrl.errors import UserError
from mmrl.rollout.vllm_broadcast import announcement, own_address, send
from mmrl.rollout.vllm_client import Client
from mmrl.rollout.vllm_process import free_port

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "mmrl-weights"


class Push(Protocol):
    """One version of the weights, for the servers it was made for."""

    @property
    def later(self) -> Mapping[str, Any] | None:
        """What a server is told that comes later; None if it must wait for the next push."""
        ...

    def told(self, number: int) -> Mapping[str, Any]:
        """What that server is told."""
        ...

    def send(self) -> None:
        """What there is to do while the servers take the weights."""
        ...


@dataclass(frozen=True)
class ByFile:
    """Weights in a file."""

    file: Path

    @property
    def later(self) -> Mapping[str, Any]:
        """The same file."""
        return {"file": str(self.file)}

    def told(self, number: int) -> Mapping[str, Any]:
        """The same file for all."""
        return self.later

    def send(self) -> None:
        """Nothing: the file is there."""


@dataclass(frozen=True)
class ByBroadcast:
    """Weights that all workers of all servers receive at once; `said` has a value a server."""

    weights: Mapping[str, Tensor]
    said: Sequence[Mapping[str, Any]]
    later: None = None

    def told(self, number: int) -> Mapping[str, Any]:
        """Where to meet, and as whom."""
        return self.said[number]

    def send(self) -> None:
        """Send the weights; raises UserError where a server does not take part in time."""
        if not self.said:
            return
        try:
            send(self.weights, self.said[0])
        except RuntimeError as error:
            raise UserError(
                f"the weights could not be broadcast to vLLM's servers: {error}"
            ) from error


def broadcast(weights: Mapping[str, Tensor], clients: Sequence[Client], seconds: float) -> Push:
    """A push of weights to these servers, from an address that all of them reach."""
    workers = [int(client.state()["workers"]) for client in clients]
    hosts = {str(urlsplit(client.url).hostname) for client in clients}
    addresses = {own_address(host) for host in hosts}
    host = next(iter(addresses - {"127.0.0.1"}), "127.0.0.1")
    port, size = free_port(), 1 + sum(workers)
    firsts = [1 + sum(workers[:i]) for i in range(len(workers))]
    return ByBroadcast(
        weights, [announcement(weights, host, port, first, size, seconds) for first in firsts]
    )


class WeightFiles:
    """Keeps the newest weights as a file, for servers of now and for those that come later.

    In `folder`, or in this machine's shared memory. What killed runs left there is removed.
    """

    def __init__(self, folder: Path | None) -> None:
        place = folder or (SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir()))
        place.mkdir(parents=True, exist_ok=True)
        _sweep(place)
        stem = f"{PREFIX}-{socket.gethostname()}-{os.getpid()}-"
        self._folder = Path(tempfile.mkdtemp(prefix=stem, dir=place))
        self._newest: Path | None = None

    def write(self, weights: Mapping[str, Tensor], version: str) -> Push:
        """Write the weights of a version."""
        self._newest = self._folder / f"{version}.safetensors"
        tensors = {name: w.detach().cpu().contiguous() for name, w in weights.items()}
        save_file(tensors, self._newest)
        return ByFile(self._newest)

    def drop_old(self) -> None:
        """Remove all versions but the newest: nobody will ask for them."""
        for file in self._folder.iterdir():
            if file != self._newest:
                file.unlink()

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Remove folders whose process, on this machine, is gone."""
    for left in place.glob(f"{PREFIX}-{socket.gethostname()}-*"):
        pid = left.name.rsplit("-", 2)[-2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)
