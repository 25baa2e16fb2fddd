from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmrl.frame import Frame
from mmrl.rewards.boxes import Box, from_source
from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, Record, Score

FRAME = Frame((800, 600), (400, 320), crop=(80, 60, 720, 540))
GOLD = (Box(100, 100, 300, 300), "pixels")


def graded(payload: str, gold: Any = GOLD, frame: Frame = FRAME, **params: Any) -> Score:
    answer = Answer(f"<think>t</think><answer>{payload}</answer>", frames=(frame,))
    return load_task("referring_box", params).score(gold, answer)


def seen(box: Box) -> str:
    return str(list(from_source(box, "processed_pixels", FRAME)))


@pytest.mark.parametrize(
    ("box", "overlap", "metric"),
    [
        (Box(120, 110, 310, 320), 34200 / 45700, 1.0),
        (Box(200, 200, 400, 400), 10000 / 70000, 0.0),
        (Box(100, 100, 300, 300), 1.0, 1.0),
        (Box(400, 400, 500, 500), 0.0, 0.0),
    ],
)
def test_worked_examples(box: Box, overlap: float, metric: float) -> None:
    score = graded(seen(box))
    assert score.parts["iou"] == pytest.approx(overlap)
    assert score.metric == metric and score.parts["format"] == 1.0
    assert graded(seen(box), reward="binary").parts["iou"] == metric


def test_exactly_half_counts_if_inclusive() -> None:
    frame = Frame((800, 600), (800, 600))
    half = "[100, 100, 300, 200]"
    assert graded(half, frame=frame).metric == 1.0
    assert graded(half, frame=frame, inclusive=False).metric == 0.0


def test_gold_in_unit_space_is_mapped_by_the_source_size() -> None:
    gold = (Box(0.125, 1 / 6, 0.375, 0.5), "unit")
    assert graded(seen(Box(100, 100, 300, 300)), gold).parts["iou"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ('{"bbox":"none"}', "malformed"),
        ("the box [1, 2, 3, 4]", "malformed"),
        ("[300, 100, 100, 300]", "malformed"),
        ("[100, 100, 100, 300]", "malformed"),
        ("[1, 2, inf, 4]", "malformed"),
        ("[1, 2, NaN, 4]", "malformed"),
        ("[1, 2, 1e99, 4]", "malformed"),
        ("[[10, 20, 30, 40], [1, 2, 3, 4]]", "multiple"),
        ("", "missing"),
    ],
)
def test_not_one_box(payload: str, status: str) -> None:
    score = graded(payload)
    assert (score.status, score.metric) == (status, 0.0)
    assert score.parts == {"iou": 0.0, "format": 0.0}


@pytest.mark.parametrize(
    ("fields", "params", "gold"),
    [
        ({"sentence": "a", "bbox": [1, 2, 3, 4]}, {}, ((1, 2, 4, 6), "pixels")),
        ({"normal_caption": "a", "solution": [1, 2, 3, 4]}, {}, ((1, 2, 3, 4), "pixels")),
        ({"sentence": "a", "bbox": [0.1, 0.2, 0.3, 0.4]}, {"layout": "lmms_eval"},
         ((0.1, 0.2, 0.3, 0.4), "unit")),
    ],
)  # fmt: skip
def test_layouts(fields: Any, params: Any, gold: Any, tmp_path: Path) -> None:
    record = Record("1", {"image": "a.png", **fields}, tmp_path)
    assert load_task("referring_box", params).sample(record).gold == gold


@pytest.mark.parametrize(
    "fields",
    [
        {"sentence": "", "bbox": [1, 2, 3, 4]},
        {"sentence": "a", "bbox": [1, 2, 0, 4]},
        {"sentence": "a", "bbox": [1, 2, 3]},
        {"sentence": "a", "solution": [3, 2, 1, 4]},
        {"sentence": "a", "solution": "1 2 3 4"},
        {"sentence": "a", "solution": [1, 2, float("nan"), 4]},
    ],
)
def test_unusable_gold_raises(fields: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        load_task("referring_box").sample(Record("1", {"image": "a.png", **fields}, tmp_path))


def test_breakdown_has_splits_and_mean_overlap() -> None:
    metas = [{"split": "val", "iou": 0.8}, {"split": "val", "iou": 0.2}, {"split": "testA"}]
    found = load_task("referring_box").breakdown([1.0, 0.0, 0.0], metas)
    assert found == {"testA": 0.0, "val": 0.5, "mIoU": pytest.approx(1 / 3)}
