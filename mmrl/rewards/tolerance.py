"""Partial credit and tolerance for numbers, in exact decimals.

`numbers.close` and `numbers.cosine_ramp` are the plain tolerance and Reason-RFT's ramp; here are
the graded rules of benchmarks, each with the rule for a gold of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

MRA_THRESHOLDS = tuple(Decimal(percent).scaleb(-2) for percent in range(50, 100, 5))
"""0.50, 0.55 ... 0.95 of VSI-Bench."""


def relative_error(value: Decimal, gold: Decimal) -> Decimal:
    """|value - gold| / |gold|; for a gold of 0 it is 0 if the value is 0 too, else infinite."""
    if value == gold:
        return Decimal(0)
    return abs(value - gold) / abs(gold) if gold else Decimal("Infinity")


def mean_relative_accuracy(
    value: Decimal,
    gold: Decimal,
    thresholds: Sequence[Decimal] = MRA_THRESHOLDS,
    strict: bool = False,
    variant: Literal["exact", "code"] = "exact",
) -> float:
    """Share of thresholds t with a relative error of at most (`strict`: below) 1 - t.

    `code` computes in binary floats like VSI-Bench's script, where 4 for 5 scores 0.6 and not 0.7
    because 1 - 0.8 is less than 0.2; it spaces its thresholds evenly from the first to the last.
    """
    if variant == "code":
        return _float_mra(float(value), float(gold), _spaced(thresholds), strict)
    error = relative_error(value, gold)
    hits = sum(error < 1 - t if strict else error <= 1 - t for t in thresholds)
    return hits / len(thresholds)


def fuzzy_relative(value: Decimal, gold: Decimal, cutoff: Decimal = Decimal("0.5")) -> float:
    """1.5 - relative error below the cutoff, else 0 (FGRPR); 1.5 for an exact answer."""
    error = relative_error(value, gold)
    return float(Decimal("1.5") - error) if error < cutoff else 0.0


def linear_relative(value: Decimal, gold: Decimal) -> float:
    """1 - relative error, not below 0 (the regression reward of Video-R1)."""
    return float(max(Decimal(0), 1 - relative_error(value, gold)))


def same_to_places(value: Decimal, gold: Decimal, places: int) -> bool:
    """Whether the value is within half a unit of that decimal place of the gold."""
    return abs(value - gold) <= Decimal("0.5").scaleb(-places)


def _spaced(thresholds: Sequence[Decimal]) -> list[float]:
    """What numpy.linspace makes of the same range, to the last bit."""
    low, high, steps = float(thresholds[0]), float(thresholds[-1]), len(thresholds) - 1
    return [low + i * ((high - low) / steps) for i in range(steps)] + [high]


def _float_mra(value: float, gold: float, thresholds: Sequence[float], strict: bool) -> float:
    if not gold:
        return float(value == gold)
    error = abs(value - gold) / gold
    return sum(error < 1 - t if strict else error <= 1 - t for t in thresholds) / len(thresholds)
