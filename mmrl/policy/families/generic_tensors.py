"""How a processor puts the media of several prompts into one tensor, learned from what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Join:
    """Tensors one after the other along an axis, the others filled up with zeros.

    `counts`: their values are places, which go on from those of the piece before; below 0 is none.
    """

    axis: int = 0
    counts: bool = False

    def of(self, pieces: Sequence[Tensor]) -> Tensor:
        """Join some tensors [n, ...] of the same kind along the axis."""
        if self.counts:
            start, moved = 0, []
            for piece in pieces:
                moved.append(torch.where(piece < 0, piece, piece + start))
                start = max(start, int(moved[-1].max()) + 1)
            pieces = moved
        if any(a.shape != b.shape for a, b in pairwise(pieces)):
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
            found[key] = join
    return found


def joined(model: Any, carried: Sequence[Tensors], joins: Mapping[str, Join]) -> dict[str, Tensor]:
    """What prompts carry, put together: on the model's device, in its dtype if no integers.

    Tensors are [n, ...], those that no join is known for are put along the first axis.
    """
    device, dtype = model.device, model.dtype
    found = {}
    for key in dict.fromkeys(key for tensors in carried for key in tensors):
        pieces = [tensors[key] for tensors in carried if key in tensors]
        value = joins.get(key, Join()).of(pieces)
        found[key] = value.to(device, dtype if value.is_floating_point() else value.dtype)
    return found
