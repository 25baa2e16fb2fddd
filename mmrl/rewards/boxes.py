"""Axis-aligned boxes: reading them, mapping them to source pixels, overlap."""

from __future__ import annotations

import re
from typing import NamedTuple

from mmrl.rewards.numbers import NumberPolicy, parse_number
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.types import Frame, Space

_POLICY = NumberPolicy(commas=False, exponent=False, max_characters=24, max_magnitude=9)
_BRACKETED = re.compile(r"\[([^\[\]]*)\]")


class Box(NamedTuple):
    """Corners x1 < x2, y1 < y2; the space they are in is named by whoever holds the box."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def area(self) -> float:
        return (self.x2 - self.x1) * (self.y2 - self.y1)

    @property
    def center(self) -> tuple[float, float]:
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2


def parse_boxes(text: str, max_boxes: int = 64) -> Parsed[tuple[Box, ...]]:
    """Read `[x1, y1, x2, y2]`, several separated by commas or in one enclosing list.

    Anything besides the boxes, an inverted or empty box, NaN and infinity are malformed, and so
    are more than `max_boxes`.
    """
    text = text.strip()
    if not text:
        return Parsed("missing", None, "empty box list")
    if text.startswith("[") and text.endswith("]") and text[1:].lstrip().startswith("["):
        text = text[1:-1]
    inner = _BRACKETED.findall(text)
    if len(inner) > max_boxes:
        return malformed(f"more than {max_boxes} boxes")
    skeleton = "".join(_BRACKETED.sub("[]", text).split())
    if skeleton != ",".join(["[]"] * len(inner)):
        return malformed(f"not a list of boxes: '{text:.40}'")
    boxes: list[Box] = []
    for coordinates in inner:
        box = _parse_corners(coordinates)
        if box.value is None:
            return malformed(box.reason)
        boxes.append(box.value)
    return ok(tuple(boxes)) if boxes else Parsed("missing", None, "no box")


def parse_box(text: str) -> Parsed[Box]:
    """Read exactly one `[x1, y1, x2, y2]`; more than one is `multiple`."""
    return parse_boxes(text).then(
        lambda boxes: (
            ok(boxes[0]) if len(boxes) == 1 else Parsed("multiple", None, f"{len(boxes)} boxes")
        )
    )


def to_source(box: Box, space: Space, frame: Frame) -> Box:
    """Map a box the model gave in `space` to source pixels; not clipped to the source.

    What lies outside the picture stays part of the box, so that it lowers the overlap.
    """
    return Box(*frame.to_source(box.x1, box.y1, space), *frame.to_source(box.x2, box.y2, space))


def from_source(box: Box, space: Space, frame: Frame) -> Box:
    """Map a box in source pixels to what the model would have to say in `space`."""
    return Box(*frame.from_source(box.x1, box.y1, space), *frame.from_source(box.x2, box.y2, space))


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes of one space, in continuous coordinates (no +1)."""
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    return overlap / (a.area + b.area - overlap)


def _parse_corners(text: str) -> Parsed[Box]:
    corners: list[float] = []
    for word in text.split(",", 4):
        number = parse_number(word, _POLICY)
        if number.value is None:
            return malformed(number.reason)
        corners.append(float(number.value))
    if len(corners) != 4:
        return malformed(f"a box has 4 numbers, found {len(corners)}")
    box = Box(*corners)
    if box.x1 >= box.x2 or box.y1 >= box.y2:
        return malformed(f"inverted or empty box [{text.strip()}]")
    return ok(box)
