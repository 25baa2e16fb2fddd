"""Options in tokens that follow the longest response a run allows, unless they are set.

Published lengths belong to the runs of their papers: a penalty that begins at 16,384 tokens does
nothing where responses end at 1,024. So such an option says which limit its default was meant for,
and keeps its share of the run's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from mmrl.validation import Section


@dataclass(frozen=True)
class OfLongest:
    """Annotates an option in tokens: its default is meant for responses of at most `tokens`.

    `of` names the option that it is a part of, and whose value it follows where that is set.
    """

    tokens: int
    of: str = ""


@dataclass(frozen=True)
class Length:
    """The value of an option in tokens, and what it came from, as a run says it."""

    value: Any
    after: str

    def __str__(self) -> str:
        value = self.value
        return f"{value:g}" if isinstance(value, int | float) else str(list(value))


def following_params(params: Section, longest: int | None) -> dict[str, Length]:
    """The values of a section's unset lengths in a run whose responses have `longest` tokens."""
    fields = type(params).model_fields
    marks = {name: _mark(field.metadata) for name, field in fields.items()}
    given = {name: getattr(params, name) for name in params.model_fields_set}
    return _following(marks, {name: fields[name].default for name in fields}, given, longest)


def following_stage(stage: Any, given: Mapping[str, Any], longest: int | None) -> dict[str, Length]:
    """The same for a stage that is a dataclass with its own defaults, and what is set of it."""
    hints = get_type_hints(type(stage), include_extras=True)
    marks = {name: _mark(getattr(hint, "__metadata__", ())) for name, hint in hints.items()}
    marks = {name: mark for name, mark in marks.items() if mark}
    return _following(marks, {name: getattr(stage, name) for name in marks}, given, longest)


def lengths_of(params: type[Section]) -> dict[str, Length]:
    """The lengths of an algorithm as published, each with the limit it was meant for."""
    return {
        name: Length(field.default, f"{mark.tokens}")
        for name, field in params.model_fields.items()
        if (mark := _mark(field.metadata))
    }


def _mark(metadata: Any) -> OfLongest | None:
    return next((mark for mark in metadata if isinstance(mark, OfLongest)), None)


def _following(
    marks: Mapping[str, OfLongest | None],
    defaults: Mapping[str, Any],
    given: Mapping[str, Any],
    longest: int | None,
) -> dict[str, Length]:
    found = {}
    for name, mark in marks.items():
        if mark is None or name in given:
            continue
        after = mark.of if mark.of in given else "rollout.max_new_tokens"
        limit = given.get(mark.of, longest)
        if limit is not None:
            value = _scaled(defaults[name], limit / mark.tokens)
            found[name] = Length(value, f"{after}={limit:g}")
    return found


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, tuple):
        return tuple(_scaled(part, factor) for part in value)
    if isinstance(value, int):
        return max(1, round(value * factor))
    return value * factor
