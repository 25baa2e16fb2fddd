"""Graded numeric rules at their edges, and where the published code differs from its formula."""

from __future__ import annotations

from decimal import Decimal

import pytest

from mmrl.rewards.tolerance import (
    fuzzy_relative,
    linear_relative,
    mean_relative_accuracy,
    same_to_places,
)


def mra(value: str, gold: str, **how: object) -> float:
    return mean_relative_accuracy(Decimal(value), Decimal(gold), **how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "gold", "expected"),
    [("2.2", "2", 0.9), ("4", "5", 0.7), ("3", "2", 0.1), ("2", "2", 1.0), ("3.1", "2", 0.0)],
)
def test_mean_relative_accuracy_is_exact(value: str, gold: str, expected: float) -> None:
    assert mra(value, gold) == expected


def test_mean_relative_accuracy_as_coded_loses_an_ulp() -> None:
    assert mra("4", "5", variant="code") == 0.6
    assert mra("2.2", "2", variant="code") == 0.9
    assert mra("4", "5", strict=True) == 0.6


def test_a_gold_of_zero_needs_an_exact_answer() -> None:
    for variant in ("exact", "code"):
        assert mra("0", "0", variant=variant) == 1.0
        assert mra("0.1", "0", variant=variant) == 0.0
    assert fuzzy_relative(Decimal(0), Decimal(0)) == 1.5
    assert fuzzy_relative(Decimal(1), Decimal(0)) == 0.0
    assert linear_relative(Decimal(1), Decimal(0)) == 0.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [("100", 1.5), ("140", 1.1), ("149.9", 1.001), ("150", 0.0), ("151", 0.0), ("50", 0.0),
     ("1e30", 0.0), ("-100", 0.0)],
)  # fmt: skip
def test_fuzzy_relative(value: str, expected: float) -> None:
    assert fuzzy_relative(Decimal(value), Decimal(100)) == pytest.approx(expected)


def test_linear_relative() -> None:
    assert linear_relative(Decimal(8), Decimal(10)) == 0.8
    assert linear_relative(Decimal(30), Decimal(10)) == 0.0
    assert linear_relative(Decimal(-10), Decimal(10)) == 0.0


def test_same_to_places() -> None:
    assert same_to_places(Decimal("1.24"), Decimal("1.2"), 1)
    assert same_to_places(Decimal("1.73"), Decimal("1.725"), 2)
    assert not same_to_places(Decimal("1.26"), Decimal("1.2"), 1)
