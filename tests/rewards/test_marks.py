"""What scores say they found, in source pixels and seconds, and how it lies on what was seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mmrl.frame import Frame, Mark
from mmrl.rewards.boxes import Box
from mmrl.rewards.detection import Detection
from mmrl.rewards.intervals import Interval
from mmrl.rewards.marks import MAX_MARKS, marks, region_marks, track_marks
from mmrl.rewards.points import Point
from mmrl.runlog.transcript import marks_on
from mmrl.scoring.pool import ScoreJob, Scorer, TaskSpec
from mmrl.scoring.tasks import example_answer, fixture_path, load_task, play

SPATIAL = {
    "referring_box": "box",
    "digit_box": "box",
    "detection": "box",
    "ovdeval": "box",
    "reasoning_segmentation": "box",
    "tracking": "box",
    "gui_grounding": None,
    "gui_action": None,
    "temporal_grounding": "interval",
    "grounded_video_qa": "interval",
}
"""Tasks whose answers are places, and which kind if it is always the same."""


@pytest.mark.parametrize("name", SPATIAL)
def test_the_right_answer_lies_on_the_gold(name: str) -> None:
    """For every record of the fixture that has a place: both sides have it, in the same spot."""
    task, found = load_task(name), 0
    for record in task.records(fixture_path(name)):
        sample = task.ask(record)
        blank = example_answer(sample)
        text = task.target(sample, blank)
        assert text is not None
        made = task.score(sample.gold, dataclasses.replace(blank, text=text)).marks
        gold = [mark for mark in made if mark.whose == "gold"]
        said = [mark for mark in made if mark.whose == "answer"]
        silent = task.score(sample.gold, blank).marks
        assert [m for m in silent if m.whose == "gold"] == gold
        assert not [m for m in silent if m.whose == "answer"]
        if not said:
            continue
        found += 1
        assert SPATIAL[name] is None or SPATIAL[name] in {mark.kind for mark in gold}
        for mark in said:
            assert any(_near(mark, wanted) for wanted in gold), (mark, gold)
    assert found


def _near(mark: Mark, gold: Mark) -> bool:
    """The same place, or a point inside the gold region."""
    if mark.kind == gold.kind:
        return mark.shown == gold.shown and mark.numbers == pytest.approx(gold.numbers, abs=2.0)
    across, down = gold.numbers[::2], gold.numbers[1::2]
    x, y = mark.numbers[:2]
    return min(across) - 2 <= x <= max(across) + 2 and min(down) - 2 <= y <= max(down) + 2


def test_kinds_and_labels() -> None:
    made = marks(
        [Box(0, 0, 9, 9), Box(1, 1, 2, 2)],
        [Detection(Box(3, 3, 4, 4), "cat"), Point(5, 6), Interval(1, 2)],
        ["dog"],
    )
    assert [(m.kind, m.whose, m.label) for m in made] == [
        ("box", "gold", "dog"),
        ("box", "gold", ""),
        ("box", "answer", "cat"),
        ("point", "answer", ""),
        ("interval", "answer", ""),
    ]
    assert [m.kind for m in region_marks([Point(0, 0)], [])] == ["point"]
    assert [m.kind for m in region_marks([Point(0, 0), Point(1, 1)], [])] == ["box"]
    assert [m.kind for m in region_marks([Point(0, 0)] * 3, [Point(1, 1)])] == ["polygon", "point"]
    assert region_marks([], []) == ()
    assert [m.shown for m in track_marks([Box(0, 0, 1, 1)] * 2, [Box(0, 0, 1, 1)])] == [0, 1, 0]
    assert len(marks((), [Point(0, 0)] * 1000)) == MAX_MARKS


@pytest.mark.parametrize(
    ("turn", "seen"),
    [
        (None, (0.0, 0.0, 0.5, 0.25)),
        ("mirror", (1.0, 0.0, 0.5, 0.25)),
        ("rotate_90_cw", (1.0, 0.0, 0.75, 0.5)),
    ],
)
def test_places_lie_where_the_model_saw_them(turn: str, seen: tuple[float, ...]) -> None:
    """Of a picture of 400 x 400 its right half's lower quarter was seen, maybe turned."""
    frame = Frame((400, 400), (50, 25), crop=(200.0, 300.0, 400.0, 400.0), turn=turn)  # type: ignore[arg-type]
    box = Mark("box", "answer", (200.0, 300.0, 300.0, 325.0), "a")
    shown = marks_on(
        [box, Mark("interval", "gold", (1.0, 2.0)), Mark("box", "gold", (), medium=1)], [frame]
    )
    assert shown[0]["numbers"] == pytest.approx(seen)
    assert shown[1]["numbers"] == [1.0, 2.0] and len(shown) == 2


def test_marks_come_back_from_a_worker(tmp_path: Path) -> None:
    task = load_task("referring_box")
    sample = task.ask(next(iter(task.records(fixture_path("referring_box")))))
    blank = example_answer(sample)
    answer = dataclasses.replace(blank, text=task.target(sample, blank) or "")
    with Scorer({"t": TaskSpec("referring_box", {}, {})}, 1, 30.0) as scorer:
        (score,) = scorer.score([ScoreJob("t", sample.gold, answer)])
    assert score.marks == task.score(sample.gold, answer).marks and len(score.marks) == 2


def test_clicks_of_an_episode_lie_on_the_screens_they_were_made_at() -> None:
    """The first on the question's screen; the second on that which came last before its turn."""
    task = load_task("web_page")
    samples = [task.ask(record) for record in task.records(fixture_path("web_page"))]
    sample = max(samples, key=lambda each: sum("box" in step for step in each.gold["path"]))
    answer = play(task, sample, lambda here: task.target(here, example_answer(sample)))
    made = task.score(sample.gold, answer).marks
    clicks = [(i, step["box"]) for i, step in enumerate(sample.gold["path"]) if "box" in step]
    assert [mark.turn for mark in made] == [turn for turn, _ in clicks]
    for mark, (_, box) in zip(made, clicks, strict=True):
        ratio = answer.frames[0].pixel_ratio
        x, y = (number / ratio for number in mark.numbers)
        assert box[0] <= x <= box[2] and box[1] <= y <= box[3]
