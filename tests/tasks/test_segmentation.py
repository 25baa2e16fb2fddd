"""Reasoning segmentation and mask tokens."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrl.errors import UserError
from mmrl.frame import Frame
from mmrl.rewards.boxes import Box, from_source
from mmrl.rewards.masks import box_mask, run_lengths
from mmrl.rewards.points import Point
from mmrl.rewards.points import from_source as point_from_source
from mmrl.scoring.tasks import fixture_path, load_task, resolve_weights, weigh
from mmrl.types import Answer, Bools, Record, Score

FRAME = Frame((840, 840), (420, 280), crop=(40, 0, 840, 800))


def solution(box: str = "(200,200),(600,600)", points: str = "(300,300),(500,500)") -> str:
    return f"<box>{box}</box><points>{points}</points>"


def sample_of(tmp_path: Path, **changes: Any) -> Any:
    params = changes.pop("params", {})
    fields = {"image": "a.png", "problem": "the cat", "solution": solution(), **changes}
    return load_task("reasoning_segmentation", params).sample(Record("1", fields, tmp_path))


def answer(box: Box, *points: Point, thought: str = "t", frame: Frame = FRAME) -> Answer:
    said = {
        "bbox": list(from_source(box, "processed_pixels", frame)),
        "points_1": list(point_from_source(points[0], "processed_pixels", frame)),
        "points_2": list(point_from_source(points[1], "processed_pixels", frame)),
    }
    text = f"<think>{thought}</think><answer>{json.dumps(said)}</answer>"
    return Answer(text, frames=(frame,))


def reward(gold: Any, given: Answer, **params: Any) -> tuple[float, Score]:
    task = load_task("reasoning_segmentation", params)
    score = weigh(task.score(gold, given), resolve_weights(task, {}))
    assert score.reward is not None
    return score.reward, score


GOLD_BOX, P1, P2 = Box(200, 200, 600, 600), Point(300, 300), Point(500, 500)


@pytest.mark.parametrize(
    ("box", "points", "expected"),
    [
        (GOLD_BOX, (P1, P2), 5.0),
        (GOLD_BOX, (P2, P1), 5.0),
        (Box(205, 205, 605, 605), (Point(10, 10), P2), 4.0),
        (Box(300, 300, 700, 700), (P1, P2), 3.0),
    ],
)
def test_worked_examples(box: Box, points: Any, expected: float, tmp_path: Path) -> None:
    gold = sample_of(tmp_path).gold
    assert reward(gold, answer(box, *points))[0] == pytest.approx(expected)


def test_worked_example_of_the_budget(tmp_path: Path) -> None:
    difficulty = {"difficulty_score": 2.0, "uncertainty_score": 0.0, "params": {"budget": True}}
    gold = sample_of(tmp_path, **difficulty).gold
    given = answer(GOLD_BOX, P1, P2)
    words = len(given.text.split())
    long = answer(GOLD_BOX, P1, P2, thought="t " * (146 - words) + "t")
    assert len(long.text.split()) == 146
    assert reward(gold, long)[0] == pytest.approx(4.5)
    assert reward(gold, given)[0] == pytest.approx(5.0)
    endless = answer(GOLD_BOX, P1, P2, thought="t " * 900)
    assert reward(gold, endless)[0] == 0.0


@pytest.mark.parametrize(
    ("difficulty", "budget"), [(2.0, 96), (3.49, 96), (3.5, None), (4.9, None), (5.0, 306)]
)
def test_difficult_records_may_take_longer(
    difficulty: float, budget: float | None, tmp_path: Path
) -> None:
    scores = {"difficulty_score": difficulty, "uncertainty_score": 2.0}
    assert sample_of(tmp_path, **scores, params={"budget": True}).gold.budget == budget
    assert sample_of(tmp_path, **scores).gold.budget is None


def test_a_missing_difficulty_is_not_called_easy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="difficulty"):
        sample_of(tmp_path, params={"budget": True})


@pytest.mark.parametrize(
    "payload",
    [
        "", "[]", "{}", "null", "[1, 2, 3, 4]",
        '{"bbox": [1, 2, 3, 4], "points_1": [1, 2]}',
        '{"bbox": [1, 2, 3, 4], "points_1": [1, 2], "points_2": [1, NaN]}',
        '{"bbox": [1, 2, 3, 4], "points_1": [1, 2], "points_2": [1, 1e99]}',
        '{"bbox": [3, 2, 1, 4], "points_1": [1, 2], "points_2": [1, 2]}',
        '{"bbox": [1, 2, 3, 4], "points_1": [1, 2], "points_2": [1, 2], "note": 1}',
        "{'bbox': [1, 2, 3, 4], 'points_1': [1, 2], 'points_2': [1, 2]}",
    ],
)  # fmt: skip
def test_not_an_answer(payload: str, tmp_path: Path) -> None:
    gold = sample_of(tmp_path).gold
    given = Answer(f"<think>{{}}</think><answer>{payload}</answer>", frames=(FRAME,))
    assert reward(gold, given)[0] == 0.0


def test_a_draft_in_the_thought_is_not_scored(tmp_path: Path) -> None:
    good = answer(GOLD_BOX, P1, P2).text
    draft = good.replace("<think>t</think><answer>", "<think>").replace("</answer>", "</think>")
    gold = sample_of(tmp_path).gold
    assert reward(gold, Answer(f"{draft}<answer>none</answer>", frames=(FRAME,)))[0] == 0.0


def test_list_form_assigns_objects(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, params={"form": "vision_reasoner"})
    near = {"bbox_2d": list(GOLD_BOX), "point_2d": [310, 300]}
    junk = {"bbox_2d": [1, 1, 9, 9], "point_2d": [2, 2]}
    frame = Frame((840, 840), (840, 840))

    def parts(*items: Any) -> Any:
        text = f"<think></think><answer>{json.dumps(items)}</answer>"
        given = Answer(text, frames=(frame,))
        return reward(sample.gold, given, form="vision_reasoner")[1].parts

    assert set(parts(near).values()) == {1.0}
    assert [parts(junk, near)[k] for k in ("overlap", "corners", "points")] == [0.5] * 3
    assert parts(*[near] * 33)["json"] == 0.0


def test_masks_of_shapes_boxes_and_ignored_pixels() -> None:
    task = load_task("reasoning_segmentation")
    records = {r.id: r for r in task.records(fixture_path("reasoning_segmentation"))}
    gold = task.sample(records["stop"]).gold
    assert gold.mask is not None and gold.ignore is not None
    assert gold.targets[0].box == (45, 20, 76, 51)
    assert 0.9 < gold.mask.area / (np.pi * 15.5**2) < 1.0  # a polygon of 16 corners
    identity = Frame((120, 180), (120, 180))
    box = Box(45, 20, 76, 51)
    score = reward(gold, answer(box, *gold.targets[0].points, frame=identity))[1]
    assert score.metric == pytest.approx(gold.mask.area / 31**2)
    over = Box(45, 10, 76, 51)  # 8 of the 10 rows more, and one by the outline, are ignored
    wider = reward(gold, answer(over, *gold.targets[0].points, frame=identity))[1]
    assert wider.evidence["union"] == 31**2 + 31 * 1
    with pytest.raises(ValueError, match="target"):
        fields = {**records["stop"].fields, "shapes": [{"label": "flag", "points": [[1, 1]] * 3}]}
        task.sample(dataclasses.replace(records["stop"], fields=fields))


def whole_picture(picture: str, boxes: Any, points: Any, size: tuple[int, int]) -> Bools:
    assert picture.endswith("shapes.png") and len(boxes) == 1 and len(points) == 2
    return np.ones((size[1], size[0]), dtype=bool)


def test_a_segmenter_makes_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmrl.rewards.custom.whole_picture", whole_picture, raising=False)
    params = {"segmenter": "mmrl.rewards.custom:whole_picture"}
    task = load_task("reasoning_segmentation", params)
    sample = task.sample(next(iter(task.records(fixture_path("reasoning_segmentation")))))
    frame = Frame((200, 160), (200, 160))
    target = sample.gold.targets[0]
    score = task.score(sample.gold, answer(target.box, *target.points, frame=frame))
    assert score.metric == pytest.approx(sample.gold.mask.area / (200 * 160))
    with pytest.raises(UserError, match="no function"):
        broken = load_task("reasoning_segmentation", {"segmenter": "mmrl.rewards.custom:nothing"})
        broken.score(sample.gold, answer(target.box, *target.points, frame=frame))


def test_both_corpus_numbers() -> None:
    metas = [{"intersection": 10, "union": 10}, {"intersection": 0, "union": 30}]
    task = load_task("reasoning_segmentation")
    assert task.aggregate([1.0, 0.0], metas) == 0.5
    assert task.breakdown([1.0, 0.0], metas) == {"cIoU": 0.25}


def test_reasonseg_folders_give_a_record_a_text(tmp_path: Path) -> None:
    shapes = [{"label": "target", "points": [[1, 1], [8, 1], [8, 8], [1, 8]]}]
    (tmp_path / "x.json").write_text(json.dumps({"shapes": shapes, "text": ["a", "b"]}))
    Image.new("RGB", (20, 10)).save(tmp_path / "x.jpg")
    task = load_task("reasoning_segmentation")
    first, second = map(task.sample, task.records(tmp_path))
    assert (first.id, second.id) == ("x-0", "x-1")
    assert first.gold.targets[0].box == (1, 1, 9, 9)


@pytest.mark.parametrize(
    "changes",
    [
        {"solution": "<box>(1,1),(9,9)</box>"},
        {"solution": solution(box="(600,200),(200,600)")},
        {"solution": solution(points="(10,10),(300,300)")},
        {"problem": "<image>"},
    ],
)
def test_unusable_gold_raises(changes: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        sample_of(tmp_path, **changes)


CELL = run_lengths(box_mask(Box(0, 0, 64, 64), (128, 96)))
WEIGHTS = {"brevity": 31 * 0.005}


def tokens(*ids: int, start: str = "<ALTo_Start>", end: str = "<ALTo_End>") -> str:
    return start + "".join(f"<TOK_{i}>" for i in ids) + end


def mask_reward(text: str, **params: Any) -> Score:
    task = load_task("mask_tokens", params)
    score = task.score(CELL, Answer(text, frames=(Frame((128, 96), (64, 64)),)))
    return weigh(score, resolve_weights(task, WEIGHTS))


def eight_tenths(ids: Any, side: int) -> Bools:
    """A mask of IoU 0.8 with the cell: 64 columns by 80 % of its rows."""
    mask = np.zeros((side, side), dtype=bool)
    mask[: side * 2 // 5, : side // 2] = True
    return mask


@pytest.mark.parametrize(("count", "expected"), [(16, 1.28), (32, 1.20)])
def test_worked_examples_of_mask_tokens(
    count: int, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmrl.rewards.custom.eight_tenths", eight_tenths, raising=False)
    score = mask_reward(tokens(*range(count)), decoder="mmrl.rewards.custom:eight_tenths")
    assert score.parts["iou"] == pytest.approx(0.8, abs=0.01)
    assert score.reward == pytest.approx(expected, abs=0.01)


def test_a_run_without_end_earns_nothing_but_in_the_published_code() -> None:
    broken = tokens(1, end="")
    assert mask_reward(broken).reward == 0.0
    # 0.1 for the start; no tokens counted, so all of the length bonus but a thirty-second
    coded = mask_reward(broken, variant="code")
    assert coded.parts == {"iou": 0.0, "format": 0.25, "brevity": 1.0}
    assert coded.reward == pytest.approx(0.26, abs=0.006)


@pytest.mark.parametrize(
    "text",
    [
        "", "<TOK_1>", tokens(), tokens(1, 1), tokens(99999), tokens(*range(33)), tokens(1) * 2,
        tokens(1) + " ok", "a " + tokens(1), tokens(1).replace("_1", "_\uff11"), tokens(1)[::-1],
        "<ALTo_End><ALTo_Start>", tokens(1, start=""), "<ALTo_Start>" * 80_000,
    ],
)  # fmt: skip
def test_not_a_run(text: str) -> None:
    score = mask_reward(text)
    assert score.reward == 0.0 and score.metric == 0.0 and score.status != "ok"


def test_tokens_decode_onto_the_picture() -> None:
    assert mask_reward(tokens(1)).parts == {"iou": 1.0, "format": 1.0, "brevity": 1.0}
    assert mask_reward(tokens(2)).parts["iou"] == 0.0
    both = mask_reward(tokens(1, 2))
    assert both.parts["iou"] == 0.5 and both.evidence["tokens"] == 2
    metas = [{"intersection": 1, "union": 2, "tokens": 4}, {"intersection": 0, "union": 2}]
    assert load_task("mask_tokens").breakdown([0.5, 0], metas) == {"cIoU": 0.25, "tokens": 2.0}
