"""A map of a room as a model imagines it: objects by name, each with its cells on a grid.

SpaceR, arXiv 2504.01805: `{"chair": [[1, 2], [7, 3]], "table": [[5, 5]]}` on 10 x 10 cells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmrl.rewards.assignment import assign
from mmrl.rewards.json_text import is_number, parse_json
from mmrl.rewards.parsed import Parsed, malformed, ok

CELLS = 10
MAX_OBJECTS = 32
"""Of one name."""
Places = tuple[tuple[float, float], ...]
RoomMap = Mapping[str, Places]


def parse_map(text: str) -> Parsed[RoomMap]:
    """Read a map: an object of JSON whose values are lists of [x, y] within the grid.

    >>> parse_map('{"Chair": [[1, 2]]}').value
    {'chair': ((1, 2),)}
    """
    return parse_json(text).then(_places)


def map_score(said: RoomMap, gold: RoomMap) -> float:
    """How near the objects of a map are to those of the gold, 0 to 1.

    Objects of one name are paired for the least distance in all; a pair is worth 1 less its share
    of the grid's diagonal, one without a partner 0, on either side. Names count by how many objects
    of them the gold has; names that it does not have are passed over.
    """
    total = sum(len(places) for places in gold.values())
    scores = (len(places) * _nearness(said.get(name, ()), places) for name, places in gold.items())
    return sum(scores) / total


def _nearness(said: Places, gold: Places) -> float:
    worth = [[1 - math.dist(a, b) / (CELLS * math.sqrt(2)) for b in gold] for a in said]
    pairs = assign(worth)
    return sum(worth[i][j] for i, j in pairs) / max(len(said), len(gold))


def _places(value: Any) -> Parsed[RoomMap]:
    if not isinstance(value, Mapping) or not value:
        return malformed("a map is an object of names with their places")
    found: dict[str, Places] = {}
    for name, places in value.items():
        if not isinstance(places, list) or not 1 <= len(places) <= MAX_OBJECTS:
            return malformed(f"'{name:.40}' has no list of 1 to {MAX_OBJECTS} places")
        if not all(map(_is_place, places)):
            return malformed(f"a place of '{name:.40}' is not [x, y] within {CELLS} x {CELLS}")
        key = " ".join(name.casefold().split())
        found[key] = (*found.get(key, ()), *((x, y) for x, y in places))
    return ok(found)


def _is_place(place: Any) -> bool:
    whole = isinstance(place, list) and len(place) == 2 and all(map(is_number, place))
    return whole and all(0 <= number <= CELLS for number in place)
