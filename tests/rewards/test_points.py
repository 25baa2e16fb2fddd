from __future__ import annotations

import time

import pytest

from mmrl.frame import Frame
from mmrl.rewards.boxes import Box
from mmrl.rewards.points import (
    Point,
    distance,
    from_source,
    in_box,
    in_polygon,
    interior_point,
    parse_point,
    point_of,
    to_source,
)

SQUARE = [Point(0, 0), Point(10, 0), Point(10, 10), Point(0, 10)]
ELL = [Point(0, 0), Point(10, 0), Point(10, 4), Point(4, 4), Point(4, 10), Point(0, 10)]
FRAME = Frame((1000, 500), (200, 400), crop=(100.0, 50.0, 500.0, 250.0))


def test_one_point() -> None:
    assert parse_point(" (1, -2.5) ").value == Point(1, -2.5)
    assert parse_point("[3,4]").value == Point(3, 4)
    assert parse_point("(1, 2) (3, 4)").status == "multiple"
    assert parse_point("").status == "missing"
    assert point_of([1, 2.5]).value == Point(1, 2.5)


@pytest.mark.parametrize(
    "text",
    ["(1, 2", "1, 2", "(1)", "(1, 2, 3)", "(a, 2)", "(nan, 1)", "((1, 2))", "(1, 1e3)", "()"],
)
def test_not_points(text: str) -> None:
    assert parse_point(text).status == "malformed"


@pytest.mark.parametrize("value", [[1], [1, 2, 3], ["1", 2], [True, 1], "1,2", None, [1, 1e99], {}])
def test_not_json_points(value: object) -> None:
    assert point_of(value).status == "malformed"


def test_a_megabyte_of_brackets_is_read_in_a_moment() -> None:
    for unit in ("(", "[", "()", "(1,2)", "(1,"):
        started = time.process_time()
        assert parse_point(unit * (10**6 // len(unit))).value is None
        assert time.process_time() - started < 1.0


def test_points_map_through_the_frame_and_back() -> None:
    assert to_source(Point(100, 200), "processed_pixels", FRAME) == Point(300, 150)
    assert to_source(Point(0.25, 0.75), "unit", FRAME) == Point(200, 200)
    for space in ("processed_pixels", "unit", "thousand", "source_pixels"):
        assert to_source(from_source(Point(123, 77), space, FRAME), space, FRAME) == pytest.approx(
            (123, 77)
        )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("point", "square", "ell"),
    [
        ((5, 5), True, False), ((2, 8), True, True), ((8, 2), True, True), ((7, 7), True, False),
        ((0, 5), True, True), ((10, 10), True, False), ((4, 7), True, True), ((7, 4), True, True),
        ((11, 5), False, False), ((-1, 0), False, False), ((11, 10), False, False),
        ((-5, 4), False, False), ((5, 10.01), False, False), ((4.01, 4.01), True, False),
    ],
)  # fmt: skip
def test_polygons_include_their_rim(
    point: tuple[float, float], square: bool, ell: bool, reverse: bool
) -> None:
    for polygon, inside in ((SQUARE, square), (ELL, ell)):
        assert in_polygon(Point(*point), polygon[::-1] if reverse else polygon) == inside


def test_an_interior_point_is_inside_and_off_the_rim() -> None:
    for polygon in (SQUARE, ELL, ELL[::-1], [Point(0, 0), Point(9, 1), Point(0, 2)]):
        x, y = interior_point(polygon)
        assert all(
            in_polygon(Point(x + dx, y + dy), polygon) for dx in (-0.1, 0.1) for dy in (-0.1, 0.1)
        )
    with pytest.raises(ValueError):
        interior_point([Point(0, 0), Point(1, 1), Point(2, 2)])


def test_box_and_distance() -> None:
    box = Box(1, 2, 3, 4)
    assert in_box(Point(1, 4), box) and not in_box(Point(1, 4), box, "open")
    assert not in_box(Point(3, 3), box, "last_pixel") and in_box(Point(2, 3), box, "last_pixel")
    assert not in_box(Point(0, 3), box) and not in_box(Point(2, 5), box)
    assert distance(Point(0, 0), Point(3, 4)) == 5
