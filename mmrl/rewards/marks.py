"""What a score found where: places of gold and answer, for whoever looks at a medium."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmrl.frame import Mark, Place, Whose
from mmrl.rewards.boxes import Box
from mmrl.rewards.detection import Detection
from mmrl.rewards.intervals import Interval
from mmrl.rewards.points import Point

MAX_MARKS = 64
"""Of one side; what is found beyond that would hide the picture."""

Found = Box | Point | Interval | Detection


def marks(
    gold: Iterable[Found], answer: Iterable[Found], labels: Sequence[str] = ()
) -> tuple[Mark, ...]:
    """Make marks of places in source pixels or seconds, on the first medium.

    Args:
        gold: what there is to find.
        answer: what was said, mapped to the source.
        labels: of the gold places, where they have some; those of detections are their own.

    Returns:
        A mark a place, at most 64 a side, the gold's first.

    Example:
        >>> marks([Box(0, 0, 9, 9)], [Point(3, 4)])[1].numbers
        (3.0, 4.0)
    """
    names = [*labels, *[""] * MAX_MARKS]
    golds = [_mark("gold", one, name) for one, name in zip(gold, names, strict=False)]
    return (*golds, *_marks("answer", answer))


def track_marks(gold: Iterable[Box], answer: Iterable[Box]) -> tuple[Mark, ...]:
    """Make marks of a box in each frame that was shown, in source pixels.

    Args:
        gold: the track to follow.
        answer: the track that was said.

    Returns:
        Marks that say in which of the shown frames they are.
    """
    sides: tuple[tuple[Whose, Iterable[Box]], ...] = (("gold", gold), ("answer", answer))
    return tuple(
        Mark("box", whose, tuple(map(float, box)), shown=number)
        for whose, boxes in sides
        for number, box in zip(range(MAX_MARKS), boxes, strict=False)
    )


def region_marks(corners: Sequence[Point], answer: Iterable[Found]) -> tuple[Mark, ...]:
    """Make marks of a gold region and what was said of it, in source pixels.

    Args:
        corners: one of a point, two of a box, more of a polygon, none where nothing is to be found.
        answer: what was said, mapped to the source.

    Returns:
        The marks, the gold's first.
    """
    kinds: dict[int, Place] = {1: "point", 2: "box"}
    numbers = tuple(float(number) for corner in corners for number in corner)
    gold = [Mark(kinds.get(len(corners), "polygon"), "gold", numbers)] if corners else []
    return (*gold, *_marks("answer", answer))


def _marks(whose: Whose, found: Iterable[Found]) -> list[Mark]:
    return [_mark(whose, one) for one, _ in zip(found, range(MAX_MARKS), strict=False)]


def _mark(whose: Whose, found: Found, label: str = "") -> Mark:
    if isinstance(found, Detection):
        return _mark(whose, found.box, found.label)
    kinds: dict[type, Place] = {Box: "box", Point: "point", Interval: "interval"}
    return Mark(kinds[type(found)], whose, tuple(map(float, found)), label)
