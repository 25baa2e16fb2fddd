"""Weights a few at a time, so that no process of a sharded run ever holds all of them.

A bucket has at most a sixteenth of the weights, or one layer where that is more: what belongs to a
layer stays together, because checkpoints stack, cut and rename within layers, and so does what is
tied. Every process makes the same buckets in the same order: gathering one is everybody's work.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

SHARE = 16
"""Of the weights, one in so many is whole at a time. Where a checkpoint has them in other shapes,
or a file is made of them, they are there twice."""

Bucket = dict[str, Tensor]
Buckets = Iterator[Bucket]
"""Weights of any shapes by name, each bucket as it is until the next one is asked for."""


class Gather(Protocol):
    """What makes parameters whole that are sharded, to be read, or `written` to."""

    def __call__(
        self, parameters: Sequence[nn.Parameter], *, written: bool = False
    ) -> AbstractContextManager[Any]:
        """Make parameters, of any shapes, whole until the block ends."""
        ...


def weights_in_buckets(model: nn.Module, gather: Gather | None) -> Buckets:
    """Yield a model's weights, in its `state_dict`'s shapes; without `gather` they are whole."""
    tensors = stored(model)
    for names in plan(tensors):
        with gathered(tensors, names, gather, written=False):
            bucket = {name: tensors[name].detach() for name in names}
            yield bucket
            # The caller may still hold it, while what it is made of is to go.
            bucket.clear()


@torch.no_grad()
def take_in_buckets(model: nn.Module, gather: Gather | None, weights: Mapping[str, Tensor]) -> None:
    """Write a model's weights, which are all there, in the shapes of its `state_dict`."""
    tensors = stored(model)
    assert tensors.keys() == weights.keys(), "weights of another model"
    for names in plan(tensors):
        with gathered(tensors, names, gather, written=True):
            for name in names:
                tensors[name].copy_(weights[name])


def gathered(
    tensors: Mapping[str, Tensor], names: Iterable[str], gather: Gather | None, *, written: bool
) -> AbstractContextManager[Any]:
    """Make those of the tensors, of any shapes, whole that are parameters."""
    found = (tensors[name] for name in names)
    # What is tied has several names and is gathered, and written back, once.
    parameters = {id(p): p for p in found if isinstance(p, nn.Parameter)}
    return gather([*parameters.values()], written=written) if gather else nullcontext()


def stored(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers, of any shapes, that a model's `state_dict` names, themselves."""
    named: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    named |= dict(model.named_buffers(remove_duplicate=False))
    return {name: named[name] for name in model.state_dict() if name in named}


def plan(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of tensors of any shapes, bucket by bucket."""
    group_of: dict[int, str] = {}
    groups: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for name, tensor in tensors.items():
        group = group_of.get(id(tensor), _together(name))
        size = 0 if id(tensor) in group_of else whole_bytes(tensor)
        group_of[id(tensor)] = group
        groups.setdefault(group, []).append(name)
        sizes[group] = sizes.get(group, 0) + size
    most, held = sum(sizes.values()) // SHARE, 0
    buckets: list[list[str]] = []
    for group, names in groups.items():
        if not buckets or held + sizes[group] > most:
            buckets.append([])
            held = 0
        buckets[-1] += names
        held += sizes[group]
    return buckets


def whole_bytes(tensor: Any) -> int:
    """Bytes of a tensor of any shape, [...], as if it were whole."""
    count: int = getattr(tensor, "ds_numel", tensor.numel())
    return count * int(tensor.element_size())


def _together(name: str) -> str:
    """The layer that a weight is of, or its module, whose adapters belong to it."""
    layer = re.match(r"(?:.*?\.)?\d+(?=\.)", name)
    if layer:
        return layer[0]
    module, *inside = re.split(r"\.(?:base_layer|lora_\w+)\.", name)
    return module if inside else name.rpartition(".")[0]


def named(buckets: Iterable[Bucket]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights, of any shapes, of all buckets one by one."""
    for bucket in buckets:
        yield from bucket.items()


def drain(buckets: Buckets) -> None:
    """Take part in the gathering of what is left of the buckets."""
    deque(buckets, maxlen=0)
