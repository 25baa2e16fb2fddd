"""Values that stand in a cell as text, at a path, or in another shape than a list."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

_LETTERED = re.compile(r"\(?[A-Z]\s*[.):\uff0e\uff1a\u3001]\s*\S")


def dig(row: Mapping[str, Any], path: str) -> Any:
    """The value at a path of names with dots between; None where there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        value = as_value(value)
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def as_value(value: Any) -> Any:
    """A list or object that stands in a cell as JSON, or as Python writes it; else as it is."""
    if isinstance(value, str) and value[:1] in "[{" and value.strip()[-1:] in "]}":
        for read in (json.loads, ast.literal_eval):
            try:
                return read(value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return value


def listed_options(value: Any) -> list[Any]:
    """The options of a choice in order: of a list, of letters and texts, of lines with letters.

    Raises ValueError for what is none of these.
    """
    value = as_value(value)
    if isinstance(value, str):
        lines = [line.strip() for line in value.splitlines() if line.strip()]
        if len(lines) > 1 and all(map(_LETTERED.match, lines)):
            return list(lines)
        raise ValueError(f"options are a list of texts, not {value!r:.60}")
    if isinstance(value, Mapping):
        if isinstance(texts := value.get("text"), list | tuple):
            return list(texts)
        found = {str(k): v for k, v in value.items() if v is not None}
        if not found or sorted(found) != list(ascii_uppercase[: len(found)]):
            raise ValueError(f"options are a list, or texts by their letters, not {value!r:.60}")
        return [found[letter] for letter in sorted(found)]
    return [o["text"] if isinstance(o, Mapping) and "text" in o else o for o in value]
