"""Rows of `metrics.jsonl` as series of numbers; what is missing, null or NaN says nothing."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

Row = Mapping[str, Any]

WINDOW = 10
"""Steps that a share is averaged over."""


def series(rows: Sequence[Row], name: str) -> list[tuple[int, float]]:
    """Collect (step, value) where the value is a finite number."""
    found = []
    for row in rows:
        step, value = finite(row.get("step")), finite(row.get(name))
        if step is not None and value is not None:
            found.append((int(step), value))
    return found


def finite(value: Any) -> float | None:
    """Return a finite number as a float, anything else as None."""
    if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        return float(value)
    return None


def recent(rows: Sequence[Row], name: str) -> float:
    """Mean over the last rows; NaN where none has the number."""
    values = [value for _, value in series(rows[-WINDOW:], name)]
    return fmean(values) if values else math.nan


def ends(rows: Sequence[Row], name: str) -> tuple[float, float] | None:
    """Means over the first and the last rows that have the number; None if too few to compare."""
    values = [value for _, value in series(rows, name)]
    if len(values) < 3 * WINDOW:
        return None
    return fmean(values[:WINDOW]), fmean(values[-WINDOW:])


def trend(rows: Sequence[Row], name: str) -> float:
    """How far the last quarter's mean is over the first's, in standard errors; NaN if too few."""
    values = [value for _, value in series(rows, name)]
    if len(values) < 4 * WINDOW:
        return math.nan
    quarter = len(values) // 4
    (start, before), (end, after) = map(mean_error, (values[:quarter], values[-quarter:]))
    error = math.hypot(before, after)
    return (end - start) / error if error else math.copysign(math.inf, end - start) * (end != start)


def mean_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error (ddof 1)."""
    return fmean(values), stdev(values) / math.sqrt(len(values))


def percent(share: float) -> str:
    """A share in words."""
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
