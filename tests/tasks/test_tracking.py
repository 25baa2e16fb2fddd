from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmrl.frame import Frame
from mmrl.rewards.boxes import Box, from_source
from mmrl.rewards.tracks import success
from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, Record, Score

FRAME = Frame((320, 200), (100, 90), crop=(20, 10, 300, 190), seconds=tuple(range(8)))
GOLD = tuple(Box(0.1 + i / 20, 0.2, 0.3 + i / 20, 0.6) for i in range(8))
APART = Box(0.8, 0.7, 0.9, 0.9)


def seen(box: Box) -> str:
    pixels = Box(box.x1 * 320, box.y1 * 200, box.x2 * 320, box.y2 * 200)
    return str(list(from_source(pixels, "processed_pixels", FRAME)))


def graded(boxes: list[str], frame: Frame = FRAME) -> Score:
    text = f"<think>t</think><answer>[{', '.join(boxes)}]</answer>"
    return load_task("tracking").score(GOLD, Answer(text, frames=(frame,)))


def test_worked_examples() -> None:
    exact = [seen(box) for box in GOLD]
    assert graded(exact).parts == {"overlap": pytest.approx(1.0), "format": 1.0}
    half = graded([*exact[:4], *[seen(APART)] * 4])
    assert half.metric == half.parts["overlap"] == pytest.approx(0.5)
    assert half.evidence["half"] == 0.5
    for wrong in (exact[:7], [*exact, exact[0]], []):
        assert graded(wrong).parts == {"overlap": 0.0, "format": 0.0}


def test_order_and_space_matter() -> None:
    exact = [seen(box) for box in GOLD]
    assert graded(exact[::-1]).parts["overlap"] < 0.5
    assert graded([str(list(box)) for box in GOLD]).parts["overlap"] == 0.0


def test_another_number_of_frames_is_an_error_and_not_a_zero() -> None:
    with pytest.raises(ValueError, match="7 frames"):
        graded([seen(box) for box in GOLD], Frame((320, 200), (320, 200), seconds=tuple(range(7))))


def test_area_under_the_success_plot() -> None:
    assert success([1.0]) == pytest.approx(20 / 21)
    assert success([0.0]) == 0.0
    assert success([0.52, 0.0]) == pytest.approx(11 / 21 / 2)
    metas = [{"success": 0.5, "half": 1.0}, {}]
    assert load_task("tracking").breakdown([1.0, 0.0], metas) == {"AUC": 0.25, "SR0.5": 0.5}


@pytest.mark.parametrize(
    "gt", [[list(b) for b in GOLD[:7]], [[0, 0, 1.5, 1]] * 8, [[1, 0, 0, 1]] * 8]
)
def test_unusable_gold_raises(gt: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        load_task("tracking").sample(
            Record("1", {"path": "a.mp4", "object": "x", "gt": gt}, tmp_path)
        )


@pytest.mark.parametrize(
    ("said", "accuracy", "status"),
    [
        ("good", 1.0, "ok"),
        ("Good", 1.0, "ok"),
        ("bad", 0.0, "ok"),
        ("very good", 0.0, "malformed"),
        ("good bad", 0.0, "malformed"),
        ("", 0.0, "missing"),
    ],
)
def test_quality_is_one_word_of_the_set(said: str, accuracy: float, status: str) -> None:
    gold = ("good", ("good", "bad"))
    answer = Answer(f"<think></think><answer>{said}</answer>")
    score = load_task("video_quality").score(gold, answer)
    assert (score.parts["accuracy"], score.metric, score.status) == (accuracy, accuracy, status)


def test_quality_outside_the_set_is_rejected(tmp_path: Path) -> None:
    fields = {"video": "a.mp4", "instruction": "?", "answer": "splendid"}
    with pytest.raises(ValueError, match="none of"):
        load_task("video_quality").sample(Record("1", fields, tmp_path))
