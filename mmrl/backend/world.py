"""The processes of one run: started by torchrun, `deepspeed` or `accelerate launch`, or just one.

Every process draws the same samples and carries out the same stages on all groups; only what is
expensive is split: decoding, rolling out, scoring, gradients. Groups stay whole. What is small
(tokens, texts, scores) is exchanged as objects over gloo, so that a process that died is noticed
by the others at once, whatever carries the tensors.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from mmrl.errors import TrainingError, UserError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`."""

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        """True for the process that writes the run folder."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The items that are this process's to work on."""
        return items[self.rank :: self.size]

    def beside(self, timeout_seconds: float) -> World:
        """The same processes with an exchange of their own, for a second thread of each."""
        if self.size == 1:
            return self
        timeout = timedelta(seconds=timeout_seconds)
        return replace(self, group=dist.new_group(backend="gloo", timeout=timeout))

    def gather(self, value: T) -> list[T]:
        """The value of every process, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        self._exchange(lambda: dist.all_gather_object(values, value, group=self.group))
        return values

    def merge(self, own: Sequence[T]) -> list[T]:
        """Put the results of every process's `share` back into the order of all items."""
        parts = self.gather(list(own))
        merged: list[T] = [None] * sum(map(len, parts))  # type: ignore[list-item]
        for rank, part in enumerate(parts):
            merged[rank :: self.size] = part
        return merged

    def once(self, call: Callable[[], T]) -> T:
        """Carry out `call` on the first process; all return its result or raise its UserError."""
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = call()
            except UserError as error:
                outcome[1] = error
        if self.size > 1:
            self._exchange(lambda: dist.broadcast_object_list(outcome, src=0, group=self.group))
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over the processes, a bucket at a time.

        They have any shape [...], the same in every process.
        """
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            self._exchange(lambda flat=flat: dist.all_reduce(flat))  # type: ignore[misc]
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def _exchange(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise TrainingError(lost(error)) from None


def is_lost(error: BaseException) -> bool:
    """True for an exchange that failed because another process is gone or does not answer."""
    words = ("Connection closed", "Connection reset", "Broken pipe", "imed out", "gloo", "NCCL")
    return any(word in str(error) for word in words)


def lost(error: BaseException) -> str:
    """One line for a failed exchange: which other process failed is in the launcher's output."""
    return (
        "lost another process of this run; the launcher's output names it and its reason, "
        f"`--resume` goes on from the last checkpoint ({str(error).splitlines()[0][:160]})"
    )


BUCKET_ELEMENTS = 1 << 24


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Cut into runs of one type and at most `BUCKET_ELEMENTS` elements (or one tensor)."""
    buckets: list[list[Tensor]] = []
    held = 0
    for tensor in tensors:
        fits = buckets and held + tensor.numel() <= BUCKET_ELEMENTS
        if fits and buckets[-1][0].dtype == tensor.dtype:
            buckets[-1].append(tensor)
            held += tensor.numel()
        else:
            buckets.append([tensor])
            held = tensor.numel()
    return buckets


def join(timeout_seconds: float, *, alone_too: bool = False) -> World:
    """Take this process's place as its launcher's environment says; one process has none to take.

    `alone_too` forms a group of one, for what needs a group at all. A process waits at most
    `timeout_seconds` for the others at an exchange.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if size == 1 and not alone_too:
        return World()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    timeout = timedelta(seconds=timeout_seconds)
    if not dist.is_initialized():
        backend = "nccl" if cuda else "gloo"
        if size == 1:
            alone = TCPStore("localhost", 0, 1, is_master=True)
            dist.init_process_group(backend, timeout=timeout, store=alone, rank=0, world_size=1)
        else:
            dist.init_process_group(backend, timeout=timeout)
    return World(rank, size, dist.new_group(backend="gloo", timeout=timeout))


def leave() -> None:
    """Give up this process's place, so that a later run of the same process can join again."""
    if dist.is_initialized():
        dist.destroy_process_group()
