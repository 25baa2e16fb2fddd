from __future__ import annotations

import time

import pytest

from mmrl.frame import Frame
from mmrl.rewards.intervals import (
    Interval,
    from_source,
    gold_interval,
    iou,
    merge,
    overlap_seconds,
    parse_interval,
    parse_intervals,
    to_source,
    union_iou,
    write_interval,
    write_intervals,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.54 to 17.83", (12.54, 17.83)),
        ("0 to 5", (0, 5)),
        ("1 and 2", (1, 2)),
        ("3.5s to 4 seconds", (3.5, 4)),
        ("00:12 to 01:02.5", (12, 62.5)),
        ("1:00:00 to 1:00:01", (3600, 3601)),
    ],
)
def test_one_interval(text: str, expected: tuple[float, float]) -> None:
    assert parse_interval(text).value == expected


@pytest.mark.parametrize(
    "text",
    ["30.4 to 24.3", "5 to 5", "-1 to 3", "NaN to 3", "0 to inf", "1 - 2", "from 1 to 2", "1 to",
     "1 to 1e3", "00:75 to 01:30", "3:2 to 5:4", "1 to 99999999", "1 to \uff12", "x" * 100],
)  # fmt: skip
def test_not_an_interval(text: str) -> None:
    assert parse_interval(text).status == "malformed"


def test_several_and_none() -> None:
    assert parse_interval("1 to 2 and 3 to 4").status == "multiple"
    assert parse_interval(" ").status == parse_intervals("").status == "missing"


@pytest.mark.parametrize("text", ["[(1, 2), (3, 4.5)]", "[ (1,2) , [3, 4.5] ]", "[1, 2]; [3, 4.5]"])
def test_lists(text: str) -> None:
    assert parse_intervals(text).value == ((1, 2), (3, 4.5))


@pytest.mark.parametrize(
    "text",
    ["[]", "()", "[(2, 1)]", "[(1, 2), ]", "[(1, 2) (3, 4)]", "(1, 2), x", "[(1, 2, 3)]", "(1, 2),",
     "[[(1, 2)]]", "[(1, inf)]", "1, 2", "[(1, 2)", ", ".join(["(1, 2)"] * 33)],
)  # fmt: skip
def test_not_lists(text: str) -> None:
    assert parse_intervals(text).status == "malformed"
    assert parse_intervals(", ".join(["(1, 2)"] * 32)).status == "ok"


def test_a_megabyte_is_read_in_a_moment() -> None:
    for unit in ("(", "(1,2),", "[", "1 to ", "(1,", ":"):
        started = time.process_time()
        for parse in (parse_interval, parse_intervals):
            assert parse(unit * (10**6 // len(unit))).status != "ok"
        assert time.process_time() - started < 1.0


def test_overlap_by_hand() -> None:
    assert iou(Interval(24.3, 30.4), Interval(20, 30)) == pytest.approx(5.7 / 10.4)
    assert iou(Interval(0, 1), Interval(1, 2)) == iou(Interval(0, 1), Interval(5, 6)) == 0.0
    a = [Interval(0, 2), Interval(1, 3), Interval(5, 6)]
    assert merge(a) == ((0, 3), (5, 6))
    assert overlap_seconds(a, [Interval(2, 5.5)]) == pytest.approx(1.5)
    assert union_iou(a, [Interval(2, 5.5)]) == pytest.approx(1.5 / 6)
    assert union_iou(a, a * 3) == 1.0


def test_seconds_count_from_the_first_frame_seen() -> None:
    frame = Frame(seconds=(10.0, 12.0, 14.0))
    assert to_source(Interval(1, 2), frame) == (11, 12)
    assert from_source(Interval(11, 12), frame) == (1, 2)


@pytest.mark.parametrize(
    "value", [[1], [2, 1], [1, 1], [-1, 2], [0, 1e9], "1 2", [0, float("nan")]]
)
def test_bad_gold_raises(value: object) -> None:
    with pytest.raises(ValueError):
        gold_interval(value)


def test_writing_round_trips() -> None:
    assert write_interval(Interval(12.5, 17)) == "12.5 to 17"
    assert parse_intervals(write_intervals([Interval(0, 1.25), Interval(2, 3)])).value == (
        (0, 1.25), (2, 3),
    )  # fmt: skip
