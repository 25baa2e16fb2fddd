"""Grade one answer with a task of the package, as the scoring runtime would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mmrl.scoring.tasks import find_defect, load_task, resolve_weights, weigh
from mmrl.types import Answer, Record, Sample, Score


def graded(task: str, gold: Any, text: str, **params: Any) -> Score:
    """The weighed score of a text; `weights` overrides the task's own."""
    weights = params.pop("weights", {})
    loaded = load_task(task, params)
    score = loaded.score(gold, Answer(text))
    assert find_defect(loaded, score) == ""
    return weigh(score, resolve_weights(loaded, weights))


def reward(task: str, gold: Any, text: str, **params: Any) -> float:
    """The reward of a text."""
    value = graded(task, gold, text, **params).reward
    assert value is not None
    return value


def asked(task: str, fields: dict[str, Any], **params: Any) -> Sample:
    """The sample of one record; media paths need not exist."""
    return load_task(task, params).sample(Record(str(fields.get("id", "r")), fields, Path("data")))


def real_data(relative: str) -> Path:
    """A file of the public records that MMRL_TEST_DATA points to; the test is skipped without."""
    root = os.environ.get("MMRL_TEST_DATA")
    if not root:
        pytest.skip("MMRL_TEST_DATA does not point to a folder of public records")
    path = Path(root) / relative
    if not path.exists():
        pytest.skip(f"MMRL_TEST_DATA has no {relative}")
    return path
