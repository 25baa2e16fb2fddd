"""What servers are given of the policy: as files that all of them see, or by broadcast.

It is told to a server as a mapping. `base` is the version whose push brought the weights beneath
the adapter; a server that has them already passes them over.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from safetensors.torch import save_file
from torch import Tensor

from mmrl.engines.vllm.broadcast import announcement, own_address, send
from mmrl.engines.vllm.client.http import Client
from mmrl.engines.vllm.client.process import free_port
from mmrl.errors import UserError

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
    """Weights in a file, and an adapter in another where there is one."""

    file: Path
    base: str
    adapter: Path | None = None

    @property
    def later(self) -> Mapping[str, Any]:
        """The same files."""
        adapter = None if self.adapter is None else str(self.adapter)
        return {"file": str(self.file), "base": self.base, "adapter": adapter}

    def told(self, number: int) -> Mapping[str, Any]:
        """The same files for all."""
        return self.later

    def send(self) -> None:
        """Nothing: the files are there."""


@dataclass(frozen=True)
class ByBroadcast:
    """Tensors that all workers of all servers receive at once; `said` has a value a server."""

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


def broadcast(
    weights: Mapping[str, Tensor],
    adapter: Mapping[str, Tensor],
    base: str,
    clients: Sequence[Client],
    seconds: float,
) -> Push:
    """A push of weights, in their parameters' shapes, from an address that all servers reach.

    `base` is the version that brought these weights, or where there are none an earlier one.
    """
    workers = [int(client.state()["workers"]) for client in clients]
    hosts = {str(urlsplit(client.url).hostname) for client in clients}
    addresses = {own_address(host) for host in hosts}
    host = next(iter(addresses - {"127.0.0.1"}), "127.0.0.1")
    port, size = free_port(), 1 + sum(workers)
    tensors = {**weights, **adapter}
    said = []
    for i in range(len(workers)):
        where = announcement(tensors, host, port, 1 + sum(workers[:i]), size, seconds)
        said.append({**where, "weights": len(weights), "base": base})
    return ByBroadcast(tensors, said)


class WeightFiles:
    """Keeps the newest weights as files, for servers of now and for those that come later.

    In `folder`, or in this machine's shared memory. What killed runs left there is removed.
    """

    def __init__(self, folder: Path | None) -> None:
        place = folder or (SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir()))
        place.mkdir(parents=True, exist_ok=True)
        _sweep(place)
        stem = f"{PREFIX}-{socket.gethostname()}-{os.getpid()}-"
        self._folder = Path(tempfile.mkdtemp(prefix=stem, dir=place))
        self._newest: ByFile | None = None

    def write(self, weights: Mapping[str, Tensor], version: str) -> Push:
        """Write the weights of a version, in their parameters' shapes."""
        self._newest = ByFile(self._save(weights, version), version)
        return self._newest

    def write_adapter(self, adapter: Mapping[str, Tensor], version: str) -> Push:
        """Write a version's adapter, [rank, in] and [out, rank], for the weights written last."""
        assert self._newest is not None
        written = self._save(adapter, f"{version}-adapter")
        self._newest = replace(self._newest, adapter=written)
        return self._newest

    def drop_old(self) -> None:
        """Remove all files but the newest: nobody will ask for them."""
        kept = self._newest and {self._newest.file, self._newest.adapter}
        for file in self._folder.iterdir():
            if kept and file not in kept:
                file.unlink()

    def _save(self, tensors: Mapping[str, Tensor], name: str) -> Path:
        file = self._folder / f"{name}.safetensors"
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, file)
        return file

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Remove folders whose process, on this machine, is gone."""
    for left in place.glob(f"{PREFIX}-{socket.gethostname()}-*"):
        pid = left.name.rsplit("-", 2)[-2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)
