"""A record must load through its task, and its own gold must earn everything."""

from __future__ import annotations

from typing import Any

import pytest

from mmrl.scoring.tasks import example_answer, find_defect, play, resolve_weights, weigh
from mmrl.task import Task
from mmrl.types import Sample


def refuse(id: str, reason: str) -> None:
    """What `load_samples` calls for a record that the task quarantines."""
    raise AssertionError(f"{id}: {reason}")


def assert_full_marks(task: Task, sample: Any) -> None:
    """The task's own target for a sample gets the full reward, seen through its real media."""
    blank = example_answer(sample)

    def say(here: Sample) -> str:
        target = task.target(here, blank)
        assert target is not None
        return target

    score = task.score(sample.gold, play(task, sample, say))
    assert find_defect(task, score) == ""
    assert score.status == "ok", score.reason
    weights = resolve_weights(task, {})
    best = sum(task.parts[name].high * weight for name, weight in weights.items())
    assert weigh(score, weights).reward == pytest.approx(best), (sample.id, score.parts)
