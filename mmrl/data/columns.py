"""Columns of a record that algorithms read: they follow the sample in its meta."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any


def carried_columns(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record holds of `COLUMNS`.

    A list may be written as JSON text. Raises ValueError where a column is not what it should be.
    """
    found = {}
    for key, read in COLUMNS.items():
        value = fields.get(key)
        if value is not None:
            found[key] = read(value if read is str else _parsed(value))
    return found


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(f"not JSON: {value!r:.60}") from None


def _key_steps(value: Any) -> tuple[str | tuple[str, ...], ...]:
    """Phrases, or lists of accepted alternatives; R1-VL keeps them under "Steps"."""
    steps = value.get("Steps") if isinstance(value, Mapping) else value
    if not isinstance(steps, list | tuple):
        raise ValueError(f"key_steps is a list of phrases, got {value!r:.60}")
    return tuple(_phrase(step) for step in steps)


def _phrase(step: Any) -> str | tuple[str, ...]:
    if isinstance(step, str):
        return step
    if isinstance(step, list | tuple) and step and all(isinstance(s, str) for s in step):
        return tuple(step)
    raise ValueError(f"a key step is a phrase or a list of alternatives, got {step!r:.60}")


def _rewrites(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise ValueError(f"rewrites is a list of texts, got {value!r:.60}")
    return tuple(value)


def _pass_rate(value: Any) -> float:
    rate = float(value)
    if not 0 <= rate <= 1:
        raise ValueError(f"pass_rate {rate:g} is not between 0 and 1")
    return rate


COLUMNS: Mapping[str, Callable[[Any], Any]] = {
    "key_steps": _key_steps,
    "rewrites": _rewrites,
    "pass_rate": _pass_rate,
    "kind": str,
}
"""What is read, and how; `pass_rate` is the base model's accuracy on the record, `kind` is whose
or of what sort it is."""
