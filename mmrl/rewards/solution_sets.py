"""Inequalities and the intervals they stand for: `x > 3` and `(3, oo)` are one answer.

Only relations of one name with numbers are read, without solving anything.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

_OR = re.compile(r"\bor\b")


class Solutions(NamedTuple):
    """The numbers that are meant, and by which name; None where an interval names none."""

    name: str | None
    pieces: tuple[tuple[float, float, bool, bool], ...]


def solutions(tree: Any, latex: str) -> Solutions | None:
    """What an interval, a relation or several of them allow; None if the tree is none of these."""
    import sympy

    if isinstance(tree, sympy.Interval | sympy.Union):
        return _numbered(None, tree)
    found = _of_relations(tree, bool(_OR.search(latex)))
    if found is None:
        return None
    name, numbers = found
    return _numbered(name, numbers)


def same_solutions(one: Solutions, other: Solutions) -> bool:
    """Whether the same numbers are meant, by one name where both have any."""
    if one.name and other.name and one.name != other.name:
        return False
    return len(one.pieces) == len(other.pieces) and all(
        a[2:] == b[2:] and all(map(_near, a[:2], b[:2]))
        for a, b in zip(one.pieces, other.pieces, strict=True)
    )


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def _of_relations(tree: Any, either: bool) -> tuple[str, Any] | None:
    import sympy

    if isinstance(tree, sympy.And | sympy.Or | sympy.FiniteSet):
        parts = [_of_relations(part, either) for part in tree.args]
        known = [part for part in parts if part is not None]
        if not known or len(known) != len(parts) or len({name for name, _ in known}) != 1:
            return None
        union = isinstance(tree, sympy.Or) or (isinstance(tree, sympy.FiniteSet) and either)
        join = sympy.Union if union else sympy.Intersection
        return known[0][0], join(*(numbers for _, numbers in known))
    if not isinstance(tree, sympy.core.relational.Relational) or isinstance(tree, sympy.Eq):
        return None
    if tree.lhs.is_number == tree.rhs.is_number:
        return None
    name, bound, kind = tree.lhs, tree.rhs, tree.rel_op
    if tree.lhs.is_number:
        name, bound, kind = tree.rhs, tree.lhs, _TURNED.get(kind, kind)
    return str(name), _range(kind, bound)


_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def _range(kind: str, bound: Any) -> Any:
    from sympy import Interval, Union, oo

    bound = bound.evalf(20)
    match kind:
        case "<":
            return Interval.open(-oo, bound)
        case "<=":
            return Interval(-oo, bound)
        case ">":
            return Interval.open(bound, oo)
        case ">=":
            return Interval(bound, oo)
        case _:
            return Union(Interval.open(-oo, bound), Interval.open(bound, oo))


def _numbered(name: str | None, numbers: Any) -> Solutions | None:
    import sympy

    parts = numbers.args if isinstance(numbers, sympy.Union) else (numbers,)
    parts = () if numbers is sympy.S.EmptySet else parts
    if not all(isinstance(part, sympy.Interval) for part in parts):
        return None
    try:
        pieces = [
            (float(part.start), float(part.end), bool(part.left_open), bool(part.right_open))
            for part in parts
        ]
    except (TypeError, ValueError):
        return None
    return Solutions(name, tuple(sorted(pieces)))
