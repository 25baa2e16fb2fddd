"""Maps of rooms: what is read, how near they are, and when a task pays for one."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from mmrl.rewards.room_map import map_score, parse_map
from mmrl.scoring.tasks import fixture_path, load_task
from mmrl.types import Answer

GOLD = {"chair": ((0, 0), (10, 10)), "table": ((5, 5),)}


def test_objects_are_paired_for_the_least_distance() -> None:
    assert map_score(GOLD, GOLD) == pytest.approx(1.0)
    # The other way round they are the same objects: an order of them says nothing.
    assert map_score({**GOLD, "chair": ((10, 10), (0, 0))}, GOLD) == pytest.approx(1.0)
    # The table is 5 cells off on a grid whose diagonal is 10 sqrt 2: 1 of 3 objects.
    off = {**GOLD, "table": ((5, 10),)}
    assert map_score(off, GOLD) == pytest.approx((2 + 1 - 5 / (10 * math.sqrt(2))) / 3)


def test_too_many_and_too_few_count_on_either_side() -> None:
    assert map_score({"chair": ((0, 0),)}, GOLD) == pytest.approx(2 * 0.5 / 3)
    many = {**GOLD, "table": ((5, 5), (5, 5), (5, 5), (5, 5))}
    assert map_score(many, GOLD) == pytest.approx((2 + 0.25) / 3)
    assert map_score({"lamp": ((1, 1),)}, GOLD) == 0.0
    assert map_score({**GOLD, "lamp": ((1, 1),)}, GOLD) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"a": []}', '{"a": [[1]]}', '{"a": [[1, 11]]}', '{"a": [[-1, 0]]}',
     '{"a": [["1", 2]]}', '{"a": [[true, 1]]}', '{"a": ' + str([[1, 1]] * 33) + "}"],
)  # fmt: skip
def test_what_is_no_map_is_malformed(text: str) -> None:
    assert parse_map(text).value is None


def test_a_map_is_paid_for_where_the_answer_is_right() -> None:
    task = load_task("vsi_bench", {"map": True})
    first, second, *_ = task.records(fixture_path("vsi_bench"))
    sample = task.ask(first)
    whole = task.completion(sample, Answer(""))
    assert whole is not None and "<map>" in whole
    assert task.score(sample.gold, Answer(whole)).parts == {
        "accuracy": 1.0,
        "format": 1.0,
        "map": 1.0,
    }
    wrong = whole.replace("<answer>1<", "<answer>9<")
    assert task.score(sample.gold, Answer(wrong)).parts["map"] == 0.0
    bare = whole[: whole.index("<map>")] + whole[whole.index("<answer>") :]
    scored = task.score(sample.gold, Answer(bare))
    assert (scored.parts["accuracy"], scored.parts["format"], scored.parts["map"]) == (
        1.0,
        0.0,
        0.0,
    )
    drawn = json.dumps({"red box": [[2, 3]]})
    half = whole[: whole.index("<map>")] + f"<map>{drawn}</map>\n<answer>1</answer>"
    assert task.score(sample.gold, Answer(half)).parts["map"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="the record's map"):
        fields = {**dict(second.fields.items()), "map": {"a": "here"}}
        task.sample(dataclasses.replace(second, fields=fields))
