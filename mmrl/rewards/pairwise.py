"""Judging pairs without a bias for a side: orders of presentation, and pair-level metrics."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from mmrl.types import Record

Order = Literal["as_is", "shuffled", "both"]
"""Show pairs as they are, half of them swapped (the same half in every run), or each in both
orders as two records."""

SWAPPED = "mmrl_swapped"
"""Column that `in_order` adds to a record."""


def in_order(records: Iterable[Record], order: Order) -> Iterator[Record]:
    """Records with the column `SWAPPED`; in both orders they get the ids `ID/ab` and `ID/ba`."""
    for record in records:
        if order == "both":
            for suffix, swapped in (("ab", False), ("ba", True)):
                fields = {**record.fields, SWAPPED: swapped, "pair": record.id}
                yield replace(record, id=f"{record.id}/{suffix}", fields=fields)
        else:
            swapped = order == "shuffled" and bool(zlib.crc32(record.id.encode()) & 1)
            yield replace(record, fields={**record.fields, SWAPPED: swapped})


def consistent_accuracy(values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
    """Share of pairs judged right in both orders; a pair with one order present is not.

    Counted over records, so that a pair drawn twice in a resampling weighs twice.
    """
    right = {name: all(v == 1.0 for v, _ in rows) and _both_orders(rows) for name, rows in
             _pairs(values, metas).items()}  # fmt: skip
    return sum(right[str(meta["pair"])] for meta in metas) / len(metas)


def consistency(values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
    """Share of pairs whose verdicts (`verdict` in the evidence, as shown) prefer the same side."""
    same = {}
    for name, rows in _pairs(values, metas).items():
        sides = {_side(meta) for _, meta in rows}
        same[name] = _both_orders(rows) and len(sides) == 1 and None not in sides
    return sum(same[str(meta["pair"])] for meta in metas) / len(metas)


def _pairs(
    values: Sequence[float], metas: Sequence[Mapping[str, Any]]
) -> dict[str, list[tuple[float, Mapping[str, Any]]]]:
    pairs: dict[str, list[tuple[float, Mapping[str, Any]]]] = {}
    for value, meta in zip(values, metas, strict=True):
        pairs.setdefault(str(meta["pair"]), []).append((value, meta))
    return pairs


def _side(meta: Mapping[str, Any]) -> bool | None:
    """Whether the second response is preferred; None without a verdict."""
    return (meta["verdict"] == "B") ^ bool(meta["swapped"]) if "verdict" in meta else None


def _both_orders(rows: Sequence[tuple[float, Mapping[str, Any]]]) -> bool:
    return {bool(meta["swapped"]) for _, meta in rows} == {False, True}
