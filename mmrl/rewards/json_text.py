"""JSON as models write it -> plain values, under caps; never eval."""

from __future__ import annotations

import json
import math
from typing import Any

from mmrl.rewards.parsed import Parsed, malformed, ok

_FENCE = "```"


def parse_json(
    text: str, *, max_depth: int = 8, max_nodes: int = 1_000, max_characters: int = 16_384
) -> Parsed[Any]:
    """Read strict JSON, optionally in one ``` or ```json fence, and nothing around it.

    NaN, infinities, duplicate keys, trailing text, nesting beyond `max_depth` and more than
    `max_nodes` values are malformed. `null` is a value of no task and is malformed at the top.
    """
    text = _unfence(text.strip())
    if not text:
        return Parsed("missing", None, "empty JSON")
    if len(text) > max_characters:
        return malformed(f"JSON longer than {max_characters} characters")
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_distinct_keys)
    except (ValueError, RecursionError) as error:
        return malformed(f"not JSON: {str(error)[:80]}")
    if value is None:
        return malformed("null is no answer")
    defect = _find_defect(value, max_depth, max_nodes)
    return malformed(defect) if defect else ok(value)


def is_number(value: Any, limit: float = 1e9) -> bool:
    """Whether a JSON value is a number (not a boolean) of magnitude up to `limit`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= limit


def _unfence(text: str) -> str:
    if len(text) < 2 * len(_FENCE) or not (text.startswith(_FENCE) and text.endswith(_FENCE)):
        return text
    return text[len(_FENCE) : -len(_FENCE)].removeprefix("json").strip()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _find_defect(value: Any, max_depth: int, max_nodes: int) -> str:
    level = [value]
    nodes = 0
    for _ in range(max_depth + 1):
        nodes += len(level)
        if nodes > max_nodes:
            return f"more than {max_nodes} values"
        if any(isinstance(item, float) and not math.isfinite(item) for item in level):
            return "a number beyond the range of floats"
        level = [child for item in level for child in _children(item)]
        if not level:
            return ""
    return f"nested deeper than {max_depth}"


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
