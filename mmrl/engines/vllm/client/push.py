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

import torch
from safetensors.torch import save_file

from mmrl.engines.vllm.broadcast import SENDER, announcement, joined, own_address
from mmrl.engines.vllm.client.http import Client
from mmrl.engines.vllm.client.process import free_port
from mmrl.errors import UserError
from mmrl.policy.buckets import Buckets

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
    """Weights in a folder's files, and an adapter in another's where there is one."""

    folder: Path
    base: str
    adapter: Path | None = None

    @property
    def later(self) -> Mapping[str, Any]:
        """The same files."""
        adapter = None if self.adapter is None else str(self.adapter)
        return {"folder": str(self.folder), "base": self.base, "adapter": adapter}

    def told(self, number: int) -> Mapping[str, Any]:
        """The same files for all."""
        return self.later

    def send(self) -> None:
        """Nothing: the files are there."""


@dataclass(frozen=True)
class ByBroadcast:
    """Weights, an adapter or both, in this order, that all workers of all servers receive at once.

    `said` has a value a server.
    """

    parts: Sequence[Buckets]
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
            with joined(self.said[0], SENDER) as exchange:
                for part in self.parts:
                    exchange.send(part)
        except RuntimeError as error:
            raise UserError(
                f"the weights could not be broadcast to vLLM's servers: {error}"
            ) from error


def broadcast(
    weights: Buckets | None,
    adapter: Buckets | None,
    device: torch.device,
    base: str,
    clients: Sequence[Client],
    seconds: float,
) -> Push:
    """A push of weights of any shapes on `device`, from an address that all servers reach.

    `base` is the version that brought these weights, or where there are none an earlier one.
    """
    workers = [int(client.state()["workers"]) for client in clients]
    hosts = {str(urlsplit(client.url).hostname) for client in clients}
    addresses = {own_address(host) for host in hosts}
    host = next(iter(addresses - {"127.0.0.1"}), "127.0.0.1")
    port, size = free_port(), 1 + sum(workers)
    parts = {"weights": weights, "adapter": adapter}
    comes = {name: part is not None for name, part in parts.items()}
    said = []
    for i in range(len(workers)):
        where = announcement(device, host, port, 1 + sum(workers[:i]), size, seconds)
        said.append({**where, **comes, "base": base})
    return ByBroadcast([part for part in parts.values() if part is not None], said)


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

    def write(self, weights: Buckets, version: str) -> Push:
        """Write the weights of a version, of any shapes, a file a bucket."""
        self._newest = ByFile(self._save(weights, version), version)
        return self._newest

    def write_adapter(self, adapter: Buckets, version: str) -> Push:
        """Write a version's adapter, [rank, in] and [out, rank], for the weights written last."""
        assert self._newest is not None
        written = self._save(adapter, f"{version}-adapter")
        self._newest = replace(self._newest, adapter=written)
        return self._newest

    def drop_old(self) -> None:
        """Remove all files but the newest: nobody will ask for them."""
        kept = self._newest and {self._newest.folder, self._newest.adapter}
        for folder in self._folder.iterdir():
            if kept and folder not in kept:
                shutil.rmtree(folder)

    def _save(self, weights: Buckets, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        for number, bucket in enumerate(weights):
            tensors = {name: t.detach().cpu().contiguous() for name, t in bucket.items()}
            save_file(tensors, folder / f"{number:05d}.safetensors")
            tensors.clear()  # before the next ones are whole
        return folder

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Remove folders whose process, on this machine, is gone."""
    for left in place.glob(f"{PREFIX}-{socket.gethostname()}-*"):
        pid = left.name.rsplit("-", 2)[-2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)
