"""Axis-aligned boxes: reading them, mapping them to source pixels, overlap."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

from mmrl.frame import Corners, Frame, Space
from mmrl.rewards.json_text import is_number
from mmrl.rewards.numbers import NumberPolicy, parse_number, write_number
from mmrl.rewards.parsed import Parsed, malformed, ok

GoldSpace = Literal["pixels", "unit", "thousand"]
"""What the numbers of a data set's boxes are: pixels, 0-1 or 0-1000 of the whole source medium."""

_POLICY = NumberPolicy(
    commas=False, exponent=False, dress=False, max_characters=24, max_magnitude=9
)
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
    """Read exactly one `[x1, y1, x2, y2]`; more than one is `multiple`.

    >>> parse_box("[1, 2, 3, 4]").value
    Box(x1=1.0, y1=2.0, x2=3.0, y2=4.0)
    """
    return parse_boxes(text).then(
        lambda boxes: (
            ok(boxes[0]) if len(boxes) == 1 else Parsed("multiple", None, f"{len(boxes)} boxes")
        )
    )


def box_of(value: Any) -> Parsed[Box]:
    """Take a JSON value `[x1, y1, x2, y2]` as a box; inverted, empty or huge is malformed."""
    if not (isinstance(value, list) and len(value) == 4 and all(map(is_number, value))):
        return malformed("a box is [x1, y1, x2, y2]")
    box = Box(*map(float, value))
    if box.x1 >= box.x2 or box.y1 >= box.y2:
        return malformed(f"inverted or empty box {value}")
    return ok(box)


def gold_box(corners: Any) -> Box:
    """Take a data set's `[x1, y1, x2, y2]` as a box; anything else raises ValueError."""
    box = box_of(list(corners) if isinstance(corners, list | tuple) else corners)
    if box.value is None:
        raise ValueError(f"gold {corners!r:.80}: {box.reason}")
    return box.value


def xywh_box(numbers: Any) -> Box:
    """Take a data set's `[x, y, width, height]` (COCO) as a box; else raises ValueError."""
    if not (isinstance(numbers, list | tuple) and len(numbers) == 4):
        raise ValueError(f"gold {numbers!r:.80}: not [x, y, width, height]")
    x, y, width, height = numbers
    return gold_box([x, y, x + width, y + height])


def gold_to_source(box: Box, space: GoldSpace, frame: Frame) -> Box:
    """Map a gold box in its data set's space to source pixels."""
    if space == "pixels":
        return box
    side = 1.0 if space == "unit" else 1000.0
    width, height = frame.source_size
    return Box(
        box.x1 / side * width, box.y1 / side * height, box.x2 / side * width, box.y2 / side * height
    )


def write_box(box: Box, space: Space) -> str:
    """Write `[x1, y1, x2, y2]` with as many decimals as the space needs, and no idle zeros."""
    digits = 4 if space == "unit" else 2
    return f"[{', '.join(write_number(corner, digits) for corner in box)}]"


def to_source(box: Box, space: Space, frame: Frame) -> Box:
    """Map a box the model gave in `space` to source pixels; not clipped to the source.

    What lies outside the picture stays part of the box, so that it lowers the overlap.
    """
    return Box(*_upright(*frame.box_to_source(box, space)))


def from_source(box: Box, space: Space, frame: Frame) -> Box:
    """Map a box in source pixels to what the model would have to say in `space`."""
    return Box(*_upright(*frame.from_source(*box[:2], space), *frame.from_source(*box[2:], space)))


def _upright(x1: float, y1: float, x2: float, y2: float) -> Corners:
    """The corners of a box from two opposite ones, which a turned picture may swap."""
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def intersection(a: Box, b: Box) -> float:
    """Shared area of two boxes of one space, in continuous coordinates (no +1)."""
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    return width * height if width > 0 and height > 0 else 0.0


def iou(a: Box, b: Box) -> float:
    """Intersection over union of boxes `a` and `b` of one space, from 0 to 1.

    >>> iou(Box(0, 0, 2, 2), Box(1, 0, 3, 2))
    0.3333333333333333
    """
    overlap = intersection(a, b)
    return overlap / (a.area + b.area - overlap) if overlap else 0.0


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
