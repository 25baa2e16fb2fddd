"""How a processor puts the media of several prompts into one tensor, learned from what it does.

What it was never seen to fill up is not filled up here: it stays apart, and the towers see to each
prompt's by itself (`generic_towers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmrl.policy.families import generic_media
from mmrl.types import MediaKind

if TYPE_CHECKING:
    from mmrl.policy.families.generic import Generic

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Join:
    """Tensors one after the other along an axis, the others filled up with zeros.

    `counts`: their values are places, which go on from those of the piece before; below 0 is none.
    `fills`: pieces of different shapes were seen to be filled up.
    """

    axis: int = 0
    counts: bool = False
    fills: bool = False

    def takes(self, pieces: Sequence[Tensor]) -> bool:
        """Whether these pieces go together as it was seen: filled up only if that was."""
        return self.fills or not self._ragged(pieces)

    def _ragged(self, pieces: Sequence[Tensor]) -> bool:
        sides = [(p.shape[: self.axis], p.shape[self.axis + 1 :]) for p in pieces]
        return any(a != b for a, b in pairwise(sides))

    def of(self, pieces: Sequence[Tensor]) -> Tensor:
        """Join some tensors [n, ...] of the same kind along the axis."""
        if self.counts:
            start, moved = 0, []
            for piece in pieces:
                moved.append(torch.where(piece < 0, piece, piece + start))
                start = max(start, int(moved[-1].max()) + 1)
            pieces = moved
        if self._ragged(pieces):
            sizes = [max(sides) for sides in zip(*(p.shape for p in pieces), strict=True)]
            pieces = [self._filled(piece, sizes) for piece in pieces]
        return torch.cat(list(pieces), dim=self.axis)

    def makes(self, pieces: Sequence[Tensor], whole: Tensor) -> bool:
        """Whether the whole is these pieces, joined, in its shape and values."""
        if self.axis >= whole.dim() or any(piece.dim() != whole.dim() for piece in pieces):
            return False
        if self.counts and (whole.is_floating_point() or not whole.numel()):
            return False
        made = self.of(pieces)
        return made.shape == whole.shape and torch.equal(made, whole)

    def _filled(self, piece: Tensor, sizes: Sequence[int]) -> Tensor:
        missing = [size - have for size, have in zip(sizes, piece.shape, strict=True)]
        missing[self.axis] = 0
        return torch.nn.functional.pad(piece, [x for m in reversed(missing) for x in (0, m)])


def by_place(short: Mapping[str, object], long: Mapping[str, object]) -> list[str]:
    """Names of what a processor makes with a row [1, L, ...] for each token of both prompts.

    What has one number a token is left out: it may be known by the token's id.
    """
    return [
        key
        for key, value in short.items()
        if isinstance(value, Tensor) and isinstance(other := long.get(key), Tensor)
        if value.dim() == other.dim() > 2
        if all(
            tensor.shape[:2] == ids.shape
            for tensor, ids in ((value, short["input_ids"]), (other, long["input_ids"]))
            if isinstance(ids, Tensor)
        )
    ]


def longer(value: Tensor, length: int) -> Tensor:
    """A tensor [n, L, ...] of rows for tokens with rows for those of a response behind.

    They are like the last one where there are rows, and 0 where there are numbers.
    """
    last = value[:, -1:] if value.dim() > 2 else torch.zeros_like(value[:, -1:])
    missing = length - value.shape[1]
    return torch.cat([value, last.expand(-1, missing, *last.shape[2:])], dim=1)


def joins(parts: Sequence[Tensors], whole: Tensors) -> dict[str, Join]:
    """How each tensor of `whole` is made of those of `parts`; others are left out."""
    found = {}
    for key, value in whole.items():
        pieces = [part[key] for part in parts if key in part]
        axes = dict.fromkeys((0, 1, value.dim() - 1))
        ways = (Join(axis, counts) for counts in (False, True) for axis in axes)
        join = next((way for way in ways if pieces and way.makes(pieces, value)), None)
        if join is not None:
            found[key] = replace(join, fills=join._ragged(pieces))
    return found


def learned(family: Generic, kind: MediaKind) -> tuple[dict[str, Join], dict[str, Join]]:
    """How a processor puts together what it makes of media of a kind: of prompts, and of copies.

    Some take several clips in one call only if they are of one size.
    """
    for sizes in ((0, 1, 2), (0, 0, 0)):
        media = [generic_media.trial(kind, *pair) for pair in enumerate(sizes)]
        batches = family.made([(media[1:], "b", count) for count in (1, 2)])
        # What is cut otherwise beside others still stands in a batch as copies do.
        copied = joins([batches[0]] * 2, batches[1]) if batches else {}
        sets = family.made([(part, "b", 1) for part in (media[:1], media[1:], media)])
        together = copied | (joins(sets[:2], sets[2]) if sets else {})
        if together:
            return together, copied
    return {}, {}


@dataclass(frozen=True)
class Given:
    """What a forward is given of all prompts' media: tensors [n, ...] on the model's device.

    Of those that are `apart` it is given the first prompt's; `each` has every prompt's own.
    """

    whole: dict[str, Tensor]
    apart: frozenset[str]
    each: list[dict[str, Tensor]]


def joined(model: Any, carried: Sequence[Tensors], joins: Mapping[str, Join]) -> Given:
    """What prompts carry [n, ...], put together, in the model's dtype if no integers.

    Apart stays what no join is known for, and what it was never seen to be done to.
    """
    device, dtype = model.device, model.dtype
    each = [
        {k: t.to(device, dtype if t.is_floating_point() else t.dtype) for k, t in tensors.items()}
        for tensors in carried
    ]
    whole, apart = {}, set()
    for key in dict.fromkeys(key for tensors in each for key in tensors):
        pieces = [tensors[key] for tensors in each if key in tensors]
        join = joins.get(key)
        if len(pieces) == 1 or join is None or not join.takes(pieces):
            whole[key] = pieces[0]
            apart |= {key} if len(pieces) > 1 else set()
        else:
            whole[key] = join.of(pieces)
    return Given(whole, frozenset(apart), each)
