"""Points: reading them, mapping them to source pixels, whether they hit a box or a polygon."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from mmrl.frame import Frame, Space
from mmrl.rewards.boxes import Box
from mmrl.rewards.json_text import is_number
from mmrl.rewards.numbers import NumberPolicy, parse_number
from mmrl.rewards.parsed import Parsed, malformed, ok

Edges = Literal["closed", "open", "last_pixel"]
"""Which rim of a box counts as inside: all of it, none, or up to x + w - 1 (VLMEvalKit)."""

_POLICY = NumberPolicy(
    commas=False, exponent=False, dress=False, max_characters=24, max_magnitude=9
)
_PAIR = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]")


class Point(NamedTuple):
    """The space it is in is named by whoever holds the point."""

    x: float
    y: float


def parse_point(text: str) -> Parsed[Point]:
    """Read exactly one `(x, y)` or `[x, y]`; more than one is `multiple`."""
    text = text.strip()
    if not text:
        return Parsed("missing", None, "empty point")
    match = _PAIR.fullmatch(text)
    if match is None:
        several = len(_PAIR.findall(text[:256])) > 1
        reason = f"not one point: '{text:.40}'"
        return Parsed("multiple", None, reason) if several else malformed(reason)
    numbers: list[float] = []
    for word in (match[1] or match[2] or "").split(",", 2):
        number = parse_number(word, _POLICY)
        if number.value is None:
            return malformed(number.reason)
        numbers.append(float(number.value))
    return ok(Point(*numbers)) if len(numbers) == 2 else malformed("a point has 2 numbers")


def point_of(value: Any) -> Parsed[Point]:
    """Take a JSON value `[x, y]` as a point; strings, booleans and huge numbers are malformed."""
    if isinstance(value, list) and len(value) == 2 and all(is_number(item) for item in value):
        return ok(Point(float(value[0]), float(value[1])))
    return malformed("a point is [x, y]")


def to_source(point: Point, space: Space, frame: Frame) -> Point:
    """Map a point the model gave in `space` to source pixels; outside the picture stays outside."""
    return Point(*frame.to_source(point.x, point.y, space))


def from_source(point: Point, space: Space, frame: Frame) -> Point:
    """Map a point in source pixels to what the model would have to say in `space`."""
    return Point(*frame.from_source(point.x, point.y, space))


def distance(a: Point, b: Point) -> float:
    """Euclidean distance of two points of one space."""
    return math.hypot(a.x - b.x, a.y - b.y)


def in_box(point: Point, box: Box, edges: Edges = "closed") -> bool:
    """Whether a point lies in a box of the same space."""
    if edges == "open":
        return box.x1 < point.x < box.x2 and box.y1 < point.y < box.y2
    rim = 1.0 if edges == "last_pixel" else 0.0
    return box.x1 <= point.x <= box.x2 - rim and box.y1 <= point.y <= box.y2 - rim


def in_polygon(point: Point, polygon: Sequence[Point]) -> bool:
    """Whether a point lies in a simple polygon of the same space, its rim included.

    Even-odd rule, so a polygon that crosses itself has holes.
    """
    inside = False
    for a, b in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        turn = (b.x - a.x) * (point.y - a.y) - (b.y - a.y) * (point.x - a.x)
        if turn == 0 and min(a.x, b.x) <= point.x <= max(a.x, b.x):
            if min(a.y, b.y) <= point.y <= max(a.y, b.y):
                return True
        elif (a.y > point.y) != (b.y > point.y) and (turn > 0) == (b.y > a.y):
            inside = not inside
    return inside


def interior_point(polygon: Sequence[Point]) -> Point:
    """Some point well inside a simple polygon, for self-checks; a flat one raises ValueError.

    Scans the horizontal halfway between two distinct vertex heights and takes the middle of its
    widest run inside.
    """
    heights = sorted({p.y for p in polygon})
    best = (0.0, Point(0.0, 0.0))
    for low, high in pairwise(heights):
        y = (low + high) / 2
        xs = sorted(
            a.x + (y - a.y) / (b.y - a.y) * (b.x - a.x)
            for a, b in zip(polygon, [*polygon[1:], polygon[0]], strict=True)
            if (a.y > y) != (b.y > y)
        )
        for left, right in zip(xs[::2], xs[1::2], strict=False):
            room = min(right - left, high - low)
            best = max(best, (room, Point((left + right) / 2, y)))
    if not best[0] > 0:
        raise ValueError("a polygon without an area")
    return best[1]
