from __future__ import annotations

import time

import pytest

from mmrl.frame import Frame, Space
from mmrl.rewards.boxes import Box, from_source, iou, parse_box, parse_boxes, to_source

BOX = Box(1, 2, 3, 4)


@pytest.mark.parametrize("text", ["[1, 2, 3, 4]", "[1,2,3,4]", " [1.0, 2, 3., 4] ", "[[1,2,3,4]]"])
def test_one_box(text: str) -> None:
    assert parse_box(text).value == BOX


def test_many_boxes() -> None:
    assert parse_boxes("[1,2,3,4], [5,6,7,8]").value == (BOX, Box(5, 6, 7, 8))
    assert parse_boxes("[[1,2,3,4], [5,6,7,8]]").value == (BOX, Box(5, 6, 7, 8))
    assert parse_box("[1,2,3,4], [5,6,7,8]").status == "multiple"
    assert parse_boxes(",".join(["[1,2,3,4]"] * 64)).status == "ok"
    assert parse_boxes(",".join(["[1,2,3,4]"] * 65)).status == "malformed"


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3,4", "[1,2,3]", "[1,2,3,4,5]", "[1,2,3,x]", "[1,2,3,NaN]", "[1,2,inf,4]",
        "[3,2,1,4]", "[1,4,3,2]", "[1,2,1,4]", "[1,2,3,2]", "[1,2,3,4", "1,2,3,4]", "[1 2 3 4]",
        "box [1,2,3,4]", "[1,2,3,4].", "[1,2,3,4] [1,2,3,4]", "[1,2,3,4],", "[1,2,3,1e9]",
        "[[[1,2,3,4]]]", "[1,2,3,99999999999]", "[\uff11,2,3,4]",
    ],
)  # fmt: skip
def test_not_boxes(text: str) -> None:
    assert parse_boxes(text).status == "malformed"


@pytest.mark.parametrize("text", ["", "  "])
def test_no_box_is_missing(text: str) -> None:
    assert parse_boxes(text).status == "missing"


def test_a_megabyte_of_brackets_is_read_in_a_moment() -> None:
    for unit in ("[", "]", "[[", "[1,2,3,4],", "[" + "1" * 1000):
        started = time.process_time()
        assert parse_boxes(unit * (10**6 // len(unit))).status == "malformed"
        assert time.process_time() - started < 2.0


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (Box(0, 0, 2, 2), Box(0, 0, 2, 2), 1.0),
        (Box(0, 0, 2, 2), Box(1, 1, 3, 3), 1 / 7),
        (Box(0, 0, 2, 2), Box(0, 0, 1, 1), 1 / 4),
        (Box(0, 0, 2, 2), Box(2, 0, 4, 2), 0.0),
        (Box(0, 0, 1, 1), Box(5, 5, 6, 6), 0.0),
        # unit coordinates: an inclusive "+1" convention would give nearly 1
        (Box(0.1, 0.1, 0.2, 0.2), Box(0.15, 0.1, 0.25, 0.2), 1 / 3),
    ],
)
def test_iou(a: Box, b: Box, expected: float) -> None:
    assert iou(a, b) == pytest.approx(expected) == iou(b, a)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("source_pixels", Box(110, 70, 160, 120)),
        # the crop (100, 50)-(200, 150) was shown at 50 x 200
        ("processed_pixels", Box(5, 40, 30, 140)),
        ("unit", Box(0.1, 0.2, 0.6, 0.7)),
        ("thousand", Box(100, 200, 600, 700)),
    ],
)
def test_boxes_map_through_crop_and_resize(space: Space, said: Box) -> None:
    frame = Frame(source_size=(400, 300), processed_size=(50, 200), crop=(100, 50, 200, 150))
    gold = Box(110, 70, 160, 120)
    assert tuple(to_source(said, space, frame)) == pytest.approx(gold)
    assert tuple(from_source(gold, space, frame)) == pytest.approx(said)
