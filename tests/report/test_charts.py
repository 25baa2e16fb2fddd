"""Axes of the report's charts: where they start and end, and how their values are written."""

from __future__ import annotations

import re

import pytest

from mmrl.report.charts import Chart, Line, axes_for, draw, number, percent, seconds


def chart(*values: float, **options: object) -> Chart:
    points = tuple(enumerate(values, start=1))
    return Chart("a", "", (Line("a", points),), options.pop("form", number), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ((0.625, 0.625), {}),
        ((0.62501, 0.62502), {}),
        ((-3.0, 1234.5), {}),
        ((0.0, 0.0), {}),
        ((0.0, 0.0), {"low": 0.0}),
        ((0.3, 17.0), {"low": 0.0}),
        ((0.1, 0.2), {"low": 0.0, "high": 1.0, "form": percent}),
        ((0.00009, 0.0003), {"low": 0.0, "form": seconds}),
    ],
)
def test_the_outer_ticks_enclose_what_is_drawn(
    values: tuple[float, ...], options: dict[str, object]
) -> None:
    """The axis starts and ends at a labelled tick, and no two labels read the same."""
    made = chart(*values, **options)
    axes = axes_for(made, [made.lines[0].points])
    assert axes.low == axes.rows[0] <= min(values) and max(values) <= axes.rows[-1] == axes.high
    labels = [made.form(tick) for tick in axes.rows]
    assert 3 <= len(set(labels)) == len(labels) <= 7
    if options.get("low") is not None:
        assert axes.low == 0
    drawn = re.findall(r'text-anchor="end">([^<]*)</text>', str(draw(made)).replace("&lt;", "≤"))
    assert drawn[:-1] == [label.replace("<", "≤") for label in labels]


def test_less_than_a_millisecond_is_not_counted() -> None:
    said = [seconds(value).replace("\N{NARROW NO-BREAK SPACE}", " ") for value in (9.2e-5, 0, 0.5)]
    assert said == ["<1 ms", "0 s", "0.5 s"]
