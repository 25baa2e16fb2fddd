"""Calls compared with expected calls: ToolRL's graded match and BFCL's AST rules."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmrl.rewards.calls import Call

_BFCL_TYPES: Mapping[str, type] = {
    "string": str, "integer": int, "float": float, "boolean": bool, "array": list, "tuple": list,
    "dict": dict, "any": str,
}  # fmt: skip
_IGNORED = re.compile(r"[ ,./\-_*^]")


@dataclass(frozen=True, slots=True)
class ExactCall:
    """An expected call with one right value an argument. Values agree as JSON: 1 is 1.0, but
    neither "1" nor true; `loose` compares the texts of scalars, so 1 is "1".
    """

    name: str
    arguments: Mapping[str, Any]
    loose: bool = False

    def names(self, call: Call) -> tuple[str, ...]:
        return tuple(self.arguments)

    def fits(self, name: str, value: Any) -> bool:
        return name in self.arguments and same_json(value, self.arguments[name], self.loose)

    def example(self) -> Call:
        return Call(self.name, self.arguments)

    def accepts(self, call: Call) -> bool:
        return (
            call.name == self.name
            and call.arguments.keys() == self.arguments.keys()
            and all(self.fits(*item) for item in call.arguments.items())
        )


@dataclass(frozen=True, slots=True)
class AllowedCall:
    """An expected call with a list of right values an argument, as in BFCL's possible answers.

    "" among them means that the argument may be left out. `types` are the declared type and the
    type of its items (or ""); `required` arguments may never be left out.
    """

    name: str
    allowed: Mapping[str, Sequence[Any]]
    types: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    def names(self, call: Call) -> tuple[str, ...]:
        """The arguments that must be there, and those this call gives of the others."""
        return tuple(
            n
            for n, values in self.allowed.items()
            if "" not in values or n in self.required or n in call.arguments
        )

    def fits(self, name: str, value: Any) -> bool:
        return (
            name in self.allowed
            and name in self.types
            and _is_allowed(value, self.allowed[name], *self.types[name])
        )

    def example(self) -> Call:
        """A right call; what the gold allows but the function does not declare is left out."""
        given = {name: _a_value(values) for name, values in self.allowed.items()}
        return Call(self.name, {n: v for n, v in given.items() if v != "" and n in self.types})

    def accepts(self, call: Call) -> bool:
        return (
            call.name == self.name
            and all(name in call.arguments for name in self.names(call))
            and all(self.fits(*item) for item in call.arguments.items())
        )


ExpectedCall = ExactCall | AllowedCall


def accept_all(expected: Sequence[ExpectedCall], calls: Sequence[Call]) -> bool:
    """Whether the calls are the expected ones, each once, in any order."""
    if len(expected) != len(calls):
        return False
    left = list(calls)
    for wanted in expected:
        match = next((call for call in left if wanted.accepts(call)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def graded_match(expected: Sequence[ExpectedCall], calls: Sequence[Call]) -> float:
    """ToolRL's share in [0, 1] of what could be right, arXiv 2504.13958.

    Overlap of the names, and for each expected call, in order, its best unused namesake: overlap
    of the argument names, and the number of right values. No call where none is expected is 1.
    """
    score = overlap([e.name for e in expected], [c.name for c in calls])
    possible = 1.0
    unused = list(calls)
    for wanted in expected:
        graded = [(_agreement(wanted, c), i) for i, c in enumerate(unused) if c.name == wanted.name]
        best, index = max(graded, key=lambda g: (g[0], -g[1]), default=(0.0, -1))
        call = unused.pop(index) if index >= 0 else Call(wanted.name)
        score += best
        possible += 1.0 + len(wanted.names(call))
    return score / possible


def overlap(a: Sequence[str], b: Sequence[str]) -> float:
    """Intersection over union of two bags; two empty ones overlap fully."""
    common = (Counter(a) & Counter(b)).total()
    return common / (len(a) + len(b) - common) if a or b else 1.0


def same_json(value: Any, gold: Any, loose: bool = False) -> bool:
    """Whether two JSON values are equal, booleans apart from numbers, numbers by value."""
    if loose and isinstance(value, bool | int | float | str):
        return isinstance(gold, bool | int | float | str) and _text(value) == _text(gold)
    if isinstance(value, dict) and isinstance(gold, dict):
        return value.keys() == gold.keys() and all(
            same_json(value[k], gold[k], loose) for k in value
        )
    if isinstance(value, list) and isinstance(gold, list):
        return len(value) == len(gold) and all(
            same_json(v, g, loose) for v, g in zip(value, gold, strict=True)
        )
    return isinstance(value, bool) == isinstance(gold, bool) and bool(value == gold)


def _text(value: bool | int | float | str) -> str:
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _agreement(wanted: ExpectedCall, call: Call) -> float:
    names = wanted.names(call)
    right = sum(n in call.arguments and wanted.fits(n, call.arguments[n]) for n in names)
    return overlap(names, list(call.arguments)) + right


def _is_allowed(value: Any, allowed: Sequence[Any], kind: str, items: str) -> bool:
    """BFCL's rules for one argument: first its type, then its value."""
    expected = _BFCL_TYPES.get(kind, str)
    nested = _BFCL_TYPES.get(items) if expected is list else None
    if kind == "float" and type(value) is int:
        value = float(value)
    if not _type_fits(value, allowed, expected, nested):
        return False
    first = _first_type(allowed)
    # A value of another type than declared stands for a variable, and is compared as it is.
    if type(value) is not expected or first not in (None, expected):
        return any(value == a for a in allowed)
    return _value_fits(value, allowed, nested)


def _value_fits(value: Any, allowed: Sequence[Any], nested: type | None) -> bool:
    if isinstance(value, dict):
        return _dict_allowed(value, allowed)
    if isinstance(value, list) and nested is dict:
        return any(_dicts_allowed(value, option) for option in allowed)
    return any(_standard(value) == _standard(a) for a in allowed)


def _type_fits(value: Any, allowed: Iterable[Any], expected: type, nested: type | None) -> bool:
    if type(value) is not expected:
        return type(value) is _first_type(allowed)
    values: Sequence[Any] = value if isinstance(value, list) else ()
    return nested is None or any(
        not isinstance(option, list)
        or all(_type_fits(item, option, nested, None) for item in values)
        for option in allowed
    )


def _first_type(allowed: Iterable[Any]) -> type | None:
    return next((type(a) for a in allowed if a != ""), None)


def _standard(value: Any) -> Any:
    """Texts without spaces and ,./-_*^, in lower case; lists item by item."""
    if isinstance(value, str):
        return _IGNORED.sub("", value).lower().replace("'", '"')
    if isinstance(value, list):
        return [_standard(v) if isinstance(v, str) else v for v in value]
    return value


def _dict_allowed(value: Mapping[str, Any], allowed: Iterable[Any]) -> bool:
    options: list[dict[str, list[Any]]] = [a for a in allowed if isinstance(a, dict)]
    return any(
        all(k in option and _standard(v) in map(_standard, option[k]) for k, v in value.items())
        and all(k in value or "" in values for k, values in option.items())
        for option in options
    )


def _dicts_allowed(value: Sequence[Any], option: Any) -> bool:
    return (
        isinstance(option, list)
        and len(value) == len(option)
        and all(
            isinstance(v, dict) and _dict_allowed(v, [o])
            for v, o in zip(value, option, strict=True)
        )
    )


def _a_value(allowed: Sequence[Any]) -> Any:
    """The first right value; "" if the argument may only be left out."""
    first = next((a for a in allowed if a != ""), "")
    if isinstance(first, dict):
        return {key: _a_value(values) for key, values in first.items() if "" not in values}
    if isinstance(first, list):
        return [_a_value([item]) if isinstance(item, dict) else item for item in first]
    return first
