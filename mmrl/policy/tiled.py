"""Attention over tiles: each tile on its own, joined by log-sum-exp.

Nothing is kept for the backward pass but the flat tensors themselves and a number a token and head:
what a tile gathers is gathered again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrl.policy import flash
from mmrl.policy.tiles import Run, Tiles, batches
from mmrl.types import Ints


class Rows:
    """Some rows of a flat tensor [N, ...]: a slice where they stand side by side."""

    def __init__(self, places: Ints, device: torch.device) -> None:
        first = int(places[0])
        self.count = len(places)
        self.aligned = np.array_equal(places, np.arange(first, first + len(places)))
        self._slice = slice(first, first + len(places))
        self._index = None if self.aligned else torch.from_numpy(places).to(device)

    def of(self, flat: Tensor) -> Tensor:
        """These rows: a view where they stand side by side."""
        return flat[self._slice] if self._index is None else flat.index_select(0, self._index)

    def write(self, flat: Tensor, rows: Tensor) -> None:
        """Put values in these rows, which are distinct."""
        if self._index is None:
            flat[self._slice] = rows
        else:
            flat.index_copy_(0, self._index, rows.to(flat.dtype))

    def add(self, flat: Tensor, rows: Tensor) -> None:
        """Add values to these rows, which are distinct but for zeros."""
        if self._index is None:
            flat[self._slice] += rows
        else:
            flat.index_add_(0, self._index, rows.to(flat.dtype))


@dataclass(frozen=True)
class Flat:
    """What attends to what: query [N, H, D], key and value [M, K, D], and the scores' scale."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float


Gradients = tuple[Tensor, Tensor, Tensor]


class Triangles:
    """Triangles of like sizes as one batch [B, M], each padded with its last token.

    A padded query attends like the token that it repeats, is never read, and has no gradient. A
    padded key comes after every query that is read. Of turned triangles both sides stand in
    reverse, which makes them causal. Keys stand `before` places further on than queries do.
    """

    def __init__(
        self, pairs: Sequence[tuple[Run, Run]], turned: bool, device: torch.device, before: int
    ) -> None:
        longest = max(queries.size for queries, _ in pairs)
        self._shape, self._turned = (len(pairs), longest), turned
        sizes = np.array([queries.size for queries, _ in pairs])
        real = np.arange(longest) < sizes[:, None]
        full = bool(real.all())
        queries = _padded([q for q, _ in pairs], longest, turned) - before
        keys = _padded([k for _, k in pairs], longest, turned)
        self._queries = Rows(queries.ravel(), device)
        self._keys = Rows(keys.ravel(), device) if turned or before else self._queries
        self.real = self._queries if full else Rows(queries[real], device)
        self._real_keys = Rows(keys[real], device) if before and not turned else self.real
        self._kept = None if full else _places(real, device)
        self._padding = None if full else _places(~real, device)
        # Keys that several triangles have are added up one triangle at a time, so that two runs
        # add them up alike.
        self._shared = len(np.unique(keys[real])) < int(real.sum())
        self._each = [Rows(row, device) for row in keys] if self._shared else []

    @property
    def padded(self) -> int:
        """Tokens with their padding."""
        return self._shape[0] * self._shape[1]

    def forward(self, flat: Flat) -> tuple[Tensor, Tensor]:
        """Outputs [R, H, D] and log-sum-exps [R, H] of the rows `real`."""
        gathered = self._gathered(self._queries, flat.query), *self._pair(flat)
        out, lse = flash.forward(*gathered, flat.scale, causal=True)
        return self._unpadded(out), self._unpadded(lse)

    def backward(self, flat: Flat, grad: Tensor, out: Tensor, lse: Tensor, into: Gradients) -> None:
        """Add what flows into queries, keys and values; own triangles are the first to.

        `grad` and `out` are [N, H, D], `lse` is [N, H].
        """
        rows = self._gathered(self._queries, grad)
        if self._padding is not None:
            rows = rows.flatten(0, 1).index_fill_(0, self._padding, 0.0).view_as(rows)
        query = self._gathered(self._queries, flat.query)
        joint = self._gathered(self._queries, out), self._gathered(self._queries, lse)
        found = flash.backward(rows, query, *self._pair(flat), *joint, flat.scale, causal=True)
        if not self._turned:
            places = (self.real, self._real_keys, self._real_keys)
            for rows_of, total, part in zip(places, into, found, strict=True):
                rows_of.write(total, self._unpadded(part))
            return
        self._queries.add(into[0], found[0].flatten(0, 1))
        for total, part in zip(into[1:], found[1:], strict=True):
            if self._shared:
                for keys, row in zip(self._each, part, strict=True):
                    keys.add(total, row)
            else:
                self._keys.add(total, part.flatten(0, 1))

    def _gathered(self, rows: Rows, flat: Tensor) -> Tensor:
        gathered: Tensor = rows.of(flat).unflatten(0, self._shape)
        return gathered

    def _pair(self, flat: Flat) -> tuple[Tensor, Tensor]:
        return self._gathered(self._keys, flat.key), self._gathered(self._keys, flat.value)

    def _unpadded(self, padded: Tensor) -> Tensor:
        rows = padded.flatten(0, 1)
        return rows if self._kept is None else rows.index_select(0, self._kept)


class Rectangle:
    """Queries that see all of a run of keys; no padding, and the keys are not copied.

    Keys stand `before` places further on than queries do.
    """

    def __init__(
        self, keys: Run, queries: Sequence[Run], device: torch.device, before: int
    ) -> None:
        self.real = Rows(np.concatenate([run.places for run in queries]) - before, device)
        self._keys = slice(keys.start, keys.stop)

    @property
    def padded(self) -> int:
        """Tokens with their padding, of which there is none."""
        return self.real.count

    def forward(self, flat: Flat) -> tuple[Tensor, Tensor]:
        """Outputs [R, H, D] and log-sum-exps [R, H] of the rows `real`."""
        out, lse = flash.forward(self._query(flat), *self._pair(flat), flat.scale, causal=False)
        return out[0], lse[0]

    def backward(self, flat: Flat, grad: Tensor, out: Tensor, lse: Tensor, into: Gradients) -> None:
        """Add what flows into queries, keys and values; `grad`, `out` [N, H, D], `lse` [N, H]."""
        rows = self._query(flat), *self._pair(flat)
        grad, out, lse = (self.real.of(x)[None] for x in (grad, out, lse))
        dq, dk, dv = flash.backward(grad, *rows, out, lse, flat.scale, causal=False)
        self.real.add(into[0], dq[0])
        into[1][self._keys] += dk[0]
        into[2][self._keys] += dv[0]

    def _query(self, flat: Flat) -> Tensor:
        return self.real.of(flat.query)[None]

    def _pair(self, flat: Flat) -> tuple[Tensor, Tensor]:
        return flat.key[None, self._keys], flat.value[None, self._keys]


class Plan:
    """The tiles of a kind of layer on a device, in the order in which they are joined.

    The first `before` keys are of tokens that ask nothing themselves.
    """

    def __init__(self, tiles: Tiles, device: torch.device, before: int = 0) -> None:
        own = [(run, run) for run in tiles.own if run.size]
        self.before = before
        self.first = _batched(own, False, device, before)
        self.further: list[Triangles | Rectangle] = [
            *(Rectangle(keys, queries, device, before) for keys, queries in tiles.whole.items()),
            *_batched(tiles.turned, True, device, before),
            *_batched(tiles.blocks, True, device, before),
        ]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attend; query [N, H, D], key and value [before + N, K, D] -> [N, H, D]."""
        return _tiled(query, key, value, scale, self)


class _Tiled(torch.autograd.Function):
    """Join the tiles' outputs; take their gradients from the joint output."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, plan: Plan
    ) -> Tensor:
        flat = Flat(query, key, value, scale)
        exact = flash.statistics(query.dtype)
        out = torch.empty_like(query, dtype=exact, memory_format=torch.contiguous_format)
        lse = query.new_empty(query.shape[:2], dtype=exact)
        for tile in plan.first:
            rows, sums = tile.forward(flat)
            tile.real.write(out, rows)
            tile.real.write(lse, sums)
        for part in plan.further:
            _join(out, lse, part.real, *part.forward(flat))
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.scale, ctx.plan = scale, plan
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, lse = ctx.saved_tensors
        flat = Flat(query, key, value, ctx.scale)
        into = tuple(
            torch.empty_like(x, dtype=lse.dtype, memory_format=torch.contiguous_format)
            for x in (query, key, value)
        )
        for total in into[1:]:
            total[: ctx.plan.before] = 0.0
        for part in (*ctx.plan.first, *ctx.plan.further):
            part.backward(flat, grad, out, lse, into)
        dq, dk, dv = (x.to(query.dtype) for x in into)
        return dq, dk, dv, None, None


_tiled: Callable[..., Tensor] = _Tiled.apply


def _join(out: Tensor, lse: Tensor, rows: Rows, part: Tensor, sums: Tensor) -> None:
    """Take one more tile into the softmax of some rows."""
    before = rows.of(lse)
    # Where the rows stand side by side, this happens in place.
    mixed = rows.of(out).lerp_(part.to(out.dtype), (sums - before).sigmoid()[..., None])
    if not rows.aligned:
        rows.write(out, mixed)
    rows.write(lse, torch.logaddexp(before, sums))


def _batched(
    pairs: Sequence[tuple[Run, Run]], turned: bool, device: torch.device, before: int
) -> list[Triangles]:
    groups = batches([queries.size for queries, _ in pairs])
    chosen = [[pairs[i] for i in sorted(group)] for group in groups]
    return [Triangles(group, turned, device, before) for group in chosen]


def _padded(runs: Sequence[Run], longest: int, turned: bool) -> Ints:
    """Flat places [B, longest], in reverse where turned, the last one repeated."""
    starts, stops = np.array([(run.start, run.stop) for run in runs], dtype=np.int64).T
    place = np.minimum(np.arange(longest), (stops - starts)[:, None] - 1)
    places: Ints = stops[:, None] - 1 - place if turned else starts[:, None] + place
    return places


def _places(flags: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.flatnonzero(flags)).to(device)
