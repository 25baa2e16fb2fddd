from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmrl.frame import Frame
from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, MediaRef, Record, Score

WHOLE = Frame(seconds=tuple(range(0, 41, 2)))
CLIP = Frame(seconds=tuple(range(20, 41, 2)))
GOLD = (24.3, 30.4)


def graded(payload: str, frame: Frame = WHOLE) -> Score:
    answer = Answer(f"<think>1 to 2</think><answer>{payload}</answer>", frames=(frame,))
    return load_task("temporal_grounding").score(GOLD, answer)


@pytest.mark.parametrize(
    ("payload", "overlap", "formed"),
    [
        ("20 to 30", 5.7 / 10.4, 1.0),
        ("0 to 5", 0.0, 1.0),
        ("30.4 to 24.3", 0.0, 0.0),
        ("24.3 to 30.4", 1.0, 1.0),
        ("00:24.3 to 00:30.4", 1.0, 1.0),
    ],
)
def test_worked_examples(payload: str, overlap: float, formed: float) -> None:
    score = graded(payload)
    assert score.parts == {"iou": pytest.approx(overlap), "format": formed}
    assert score.metric == score.parts["iou"]


def test_seconds_count_from_the_start_of_the_clip() -> None:
    assert graded("4.3 to 10.4", CLIP).metric == pytest.approx(1.0)
    assert graded("24.3 to 30.4", CLIP).metric == 0.0


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ("20 to 30 and 24 to 31", "multiple"),
        ("from 20 to 30", "malformed"),
        ("0 to 99999999999", "malformed"),
        ("0 to inf", "malformed"),
        ("-5 to 30", "malformed"),
        ("", "missing"),
    ],
)
def test_not_one_interval(payload: str, status: str) -> None:
    score = graded(payload)
    assert (score.status, score.metric) == (status, 0.0)


def test_hugging_everything_earns_little() -> None:
    assert graded("0 to 999999").metric == pytest.approx(6.1 / 999999)


def test_files_keyed_by_video_give_a_record_a_sentence(tmp_path: Path) -> None:
    entry = {"duration": 30.96, "timestamps": [[24.3, 30.4], [7.3, 12]], "sentences": ["a.", "b."]}
    path = tmp_path / "charades.json"
    path.write_text(json.dumps({"3MSZA": entry}))
    task = load_task("temporal_grounding", {"video_path": "videos/{video}.mp4"})
    records = list(task.records(path))
    assert [record.id for record in records] == ["3MSZA-0", "3MSZA-1"]
    sample = task.sample(records[1])
    assert sample.gold == (7.3, 12)
    assert sample.parts[0] == MediaRef("video", tmp_path / "videos" / "3MSZA.mp4")


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": [5, 5]}, {"timestamp": [6, 5]}, {"timestamp": [40, 50]}, {"sentence": " "},
        {"timestamp": [1]}, {"clip": [3, 2]}, {"video": "../x.mp4"},
    ],
)  # fmt: skip
def test_unusable_records_raise(changes: dict[str, Any], tmp_path: Path) -> None:
    fields = {"video": "a.mp4", "duration": 30, "timestamp": [1, 2], "sentence": "a", **changes}
    with pytest.raises(ValueError):
        load_task("temporal_grounding").sample(Record("1", fields, tmp_path))


def test_recall_at_thresholds_includes_the_bound() -> None:
    task = load_task("temporal_grounding")
    values = [0.3, 0.5, 0.69, 1.0]
    assert task.breakdown(values, [{}] * 4) == {"R1@0.3": 1.0, "R1@0.5": 0.75, "R1@0.7": 0.25}
    assert task.aggregate(values, [{}] * 4) == pytest.approx(2.49 / 4)
