from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmrl.frame import Frame
from mmrl.rewards.boxes import Box, from_source
from mmrl.rewards.detection import GoldBoxes
from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, Record, Score

FRAME = Frame((600, 400), (300, 250), crop=(30, 20, 570, 380))
A = Box(100, 100, 300, 300)
GOLD = GoldBoxes((A,), ("cup",), ("bowl", "cup"))


def item(label: str, score: float | None = None, box: Box = A) -> str:
    corners = list(from_source(box, "processed_pixels", FRAME))
    sure = "" if score is None else f', "confidence": {score}'
    return f'{{"bbox_2d": {corners}, "label": "{label}"{sure}}}'


def graded(*items: str, gold: GoldBoxes = GOLD, **params: Any) -> Score:
    payload = f"[{', '.join(items)}]" if items else "None"
    answer = Answer(f"<think></think><answer>{payload}</answer>", frames=(FRAME,))
    return load_task("ovdeval", params).score(gold, answer)


def test_worked_examples() -> None:
    assert graded(item("cup")).metric == pytest.approx(1.0)
    hedge = (item("cup", 0.6), item("bowl", 0.9))
    assert graded(*hedge, nms=None).metric == pytest.approx(1.0)
    assert graded(*hedge).metric == 0.0
    assert graded(item("bowl")).metric == 0.0


def test_equal_confidence_keeps_what_was_written_first() -> None:
    assert graded(item("cup"), item("bowl")).metric == pytest.approx(1.0)
    assert graded(item("bowl"), item("cup")).metric == 0.0


def test_hedging_costs_half_of_the_reward() -> None:
    assert graded(item("cup")).parts["boxes"] == pytest.approx(1.0)
    assert graded(item("cup"), item("bowl")).parts["boxes"] == pytest.approx(0.5)


def test_nothing_there() -> None:
    nothing = GoldBoxes((), (), ("bowl", "cup"))
    assert graded(gold=nothing).parts["boxes"] == graded(gold=nothing).metric == 1.0
    assert graded(item("cup"), gold=nothing).parts["boxes"] == 0.0
    assert graded(item("plate")).status == "malformed"


def test_mean_over_aspects_of_corpus_ap() -> None:
    hit = [("cup", 1.0, 1023, 0)]
    metas = [
        {"aspect": "color", "golds": {"cup": 1}, "matches": hit},
        {"aspect": "color", "golds": {"cup": 1}, "matches": hit},
        {"aspect": "logo", "golds": {"cup": 1}},
    ]
    task = load_task("ovdeval")
    assert task.breakdown([1, 1, 0], metas) == {"color": pytest.approx(1.0), "logo": 0.0}
    assert task.aggregate([1, 1, 0], metas) == pytest.approx(0.5)


def test_public_files_give_a_record_an_image(tmp_path: Path) -> None:
    data = {
        "categories": [{"supercategory": "", "id": 7, "name": "cup"}],
        "images": [
            {"id": 3, "file_name": "a.png", "height": 4, "width": 4, "text": ["cup"],
             "neg_text": ["bowl"]},
            {"id": 4, "file_name": "b.png", "height": 4, "width": 4, "text": [], "neg_text": ["x"]},
        ],
        "annotations": [
            {"id": 1, "bbox": [1, 1, 2, 2], "category_id": 7, "image_id": 3, "iscrowd": 0}
        ],
    }  # fmt: skip
    path = tmp_path / "material.json"
    path.write_text(json.dumps(data))
    task = load_task("ovdeval")
    one, two = map(task.sample, task.records(path))
    assert one.gold == GoldBoxes((Box(1, 1, 3, 3),), ("cup",), ("bowl", "cup"))
    assert one.meta == {"golds": {"bowl": 0, "cup": 1}, "aspect": "material"}
    assert two.gold.boxes == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"text": ["a"], "neg_text": ["a"], "annotations": []},
        {"text": [], "neg_text": [], "annotations": []},
        {
            "text": ["b"],
            "neg_text": ["a"],
            "annotations": [{"bbox": [1, 1, 2, 2], "category": "a"}],
        },
        {"text": ["b"], "neg_text": [], "annotations": [{"bbox": [1, 1, 2, 2], "category": "c"}]},
        {"text": ["b"], "neg_text": [], "annotations": [{"bbox": [1, 1, 2], "category": "b"}]},
    ],
)
def test_unusable_gold_raises(fields: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        load_task("ovdeval").sample(Record("1", {"image": "a.png", **fields}, tmp_path))
