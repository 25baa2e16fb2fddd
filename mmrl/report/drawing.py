"""Marks of a row drawn on its media: places over pictures, intervals under clips and sounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmrl.runlog.rows import finite

SIDE = 1000.0
"""Of the drawing, whatever the picture's shape: it is stretched over the picture."""
GOLD = 0
"""The number of what is right, among those of the completions."""
MAX_DRAWN = 400  # on one card
COLUMNS, MAX_CELLS = 2, 8  # of a clip's sheet of frames
COUNTS = {"box": 4, "interval": 2, "point": 2}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A place over a picture; `path` is an SVG's, `left` and `top` in percent are its label's."""

    number: int
    kind: str
    path: str
    left: float
    top: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval under a clip or a sound, in percent of what was shown of it."""

    number: int
    left: float
    width: float
    label: str


Mark = tuple[int, Mapping[str, Any]]
"""A mark as a row has it, under the number of its completion, or that of gold."""


def marks_of(responses: Sequence[tuple[int, Mapping[str, Any]]]) -> list[Mark]:
    """The marks of numbered responses, what is right once only, junk left out."""
    found: list[Mark] = []
    for number, response in responses:
        listed = response.get("marks")
        known = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
        gold = [m for m in known if m.get("whose") == "gold"]
        if gold and not any(number == GOLD for number, _ in found):
            found += [(GOLD, mark) for mark in gold]
        found += [(number, mark) for mark in known if mark.get("whose") == "answer"]
    return found[:MAX_DRAWN]


def on_medium(marks: Sequence[Mark], place: int) -> list[Mark]:
    """The marks on the medium in this place."""
    return [(number, mark) for number, mark in marks if mark.get("medium", 0) == place]


def drawn(marks: Sequence[Mark], medium: Mapping[str, Any]) -> Iterator[Drawn]:
    """Draw the boxes, points and polygons on a medium's thumbnail."""
    for number, mark in marks:
        numbers = _numbers(mark)
        cell = _cell(mark, medium)
        if not numbers or mark.get("kind") == "interval" or cell is None:
            continue
        x0, y0, width, height = cell
        placed = [
            (x0 + min(max(x, -0.1), 1.1) * width, y0 + min(max(y, -0.1), 1.1) * height)
            for x, y in zip(numbers[::2], numbers[1::2], strict=True)
        ]
        left, top = (min(axis) for axis in zip(*placed, strict=True))
        label = str(mark.get("label") or "")[:40]
        kind = str(mark.get("kind"))
        yield Drawn(number, kind, _path(kind, placed), _percent(left), _percent(top), label)


def bars(marks: Sequence[Mark], medium: Mapping[str, Any]) -> Iterator[Bar]:
    """Draw the intervals along what was shown of a medium."""
    listed = medium.get("seconds")
    shown = [s for each in listed if (s := finite(each)) is not None] if listed else []
    if len(shown) < 2 or shown[-1] <= shown[0]:
        return
    first, length = shown[0], shown[-1] - shown[0]
    for number, mark in marks:
        numbers = _numbers(mark)
        if mark.get("kind") != "interval" or not numbers:
            continue
        start, end = (min(max((s - first) / length, 0.0), 1.0) for s in numbers)
        label = f"{numbers[0]:.1f} to {numbers[1]:.1f} s"
        yield Bar(number, _percent(start), max(_percent(end - start), 0.5), label)


def _numbers(mark: Mapping[str, Any]) -> list[float]:
    """A mark's numbers if they are what its kind has; else none."""
    listed = mark.get("numbers")
    found = [finite(n) for n in listed] if isinstance(listed, list) else []
    known = [n for n in found if n is not None]
    kind = str(mark.get("kind"))
    right = len(known) == COUNTS[kind] if kind in COUNTS else len(known) >= 6
    return known if right and len(known) == len(found) and len(known) % 2 == 0 else []


def _cell(
    mark: Mapping[str, Any], medium: Mapping[str, Any]
) -> tuple[float, float, float, float] | None:
    """Where on the thumbnail the marked picture lies, in 0-1; None where it is not shown."""
    if medium.get("kind") != "video":
        return 0.0, 0.0, 1.0, 1.0
    shown = medium.get("shown")
    if not isinstance(shown, list) or mark.get("shown") not in shown[:MAX_CELLS]:
        return None
    place, columns = shown.index(mark.get("shown")), min(COLUMNS, len(shown))
    rows = -(-len(shown[:MAX_CELLS]) // columns)
    return place % columns / columns, place // columns / rows, 1 / columns, 1 / rows


def _path(kind: str, placed: Sequence[tuple[float, float]]) -> str:
    """An SVG path; a point is a line of no length, which a round pen makes a dot."""
    if kind == "box":
        (x1, y1), (x2, y2) = placed
        placed = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    corners = [f"{x * SIDE:.0f} {y * SIDE:.0f}" for x, y in placed]
    return f"M{corners[0]}h0" if kind == "point" else f"M{'L'.join(corners)}Z"


def _percent(share: float) -> float:
    return round(min(max(100 * share, 0.0), 96.0), 1)
