"""Numbers with what stands around them: fractions, units, money, percent, each read exactly."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from mmrl.rewards.expressions import Expression, parse_expression
from mmrl.rewards.numbers import parse_number
from mmrl.rewards.parsed import Parsed, ok
from mmrl.rewards.units import NAMELESS

_FRACTION = re.compile(
    r"(?P<sign>-?)(?P<whole>[0-9]{1,12} ?)?"
    r"(?:\\frac ?\{ ?(?P<a>[0-9]{1,12}) ?\} ?\{ ?(?P<b>[0-9]{1,12}) ?\}"
    r"|\\frac(?P<c>[0-9])(?P<d>[0-9]))"
    r"|(?P<minus>-?)(?P<over>[0-9]{1,12}) ?/ ?(?P<under>[0-9]{1,12})"
)


class Quantity(NamedTuple):
    """A value as written, with its unit ("" if none) and whether a percent sign follows."""

    value: Decimal
    unit: str = ""
    percent: bool = False


def parse_quantity(text: str) -> Parsed[Quantity]:
    """Read text that is one rational number with its unit or percent sign, and nothing else."""
    plain = parse_number(text)
    if plain.value is not None:
        return ok(Quantity(plain.value))
    expression = parse_expression(text).value
    value = _value(expression) if expression and expression.restated is None else None
    if expression is None or value is None:
        return Parsed(plain.status, None, plain.reason)
    return ok(Quantity(value, expression.unit, expression.percent))


def pairs_of(said: Quantity, wanted: Quantity) -> list[tuple[Decimal, Decimal]]:
    """The values to compare; none where the units differ.

    A percent sign on one side only is read both ways: `16.7%` is 16.7 and 0.167.
    """
    units = {unit for unit in (said.unit, wanted.unit) if unit and unit not in NAMELESS}
    if len(units) > 1:
        return []
    face = (said.value, wanted.value)
    if said.percent == wanted.percent:
        return [face]
    if said.percent:
        return [face, (said.value.scaleb(-2), wanted.value)]
    return [face, (said.value, wanted.value.scaleb(-2))]


def _value(expression: Expression) -> Decimal | None:
    if expression.number is not None:
        return expression.number
    match = _FRACTION.fullmatch(expression.latex)
    if match is None:
        return None
    sign = match["sign"] or match["minus"] or ""
    over = match["a"] or match["c"] or match["over"]
    under = match["b"] or match["d"] or match["under"]
    if not int(under):
        return None
    value = Decimal(match["whole"] or 0) + Decimal(over) / Decimal(under)
    return -value if sign else value
