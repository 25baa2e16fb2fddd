"""Two evaluations record by record: the paired interval, and what cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrl.cli import main
from mmrl.errors import DataError
from mmrl.evaluate.comparison import compare


def evaluation(path: Path, metrics: Sequence[Any], **more: Any) -> Path:
    """A result with these metrics by record; a tuple is those of several answers."""
    answers = [
        {"id": str(i), "metric": metric}
        for i, each in enumerate(metrics)
        for metric in (each if isinstance(each, tuple) else (each,))
    ]
    made = {"task": "t", "metric_name": "accuracy", "better": "higher", "answers": answers, **more}
    path.write_text(json.dumps(made))
    return path


def test_the_interval_is_that_of_the_paired_difference(tmp_path: Path) -> None:
    """Equal but for 30 records: intervals of each would overlap, the paired one is far from 0."""
    rng = np.random.default_rng(0)
    before = rng.integers(0, 2, 400).astype(float)
    after = before.copy()
    after[np.flatnonzero(before == 0)[:30]] = 1.0
    found = compare(
        evaluation(tmp_path / "a.json", before.tolist()),
        evaluation(tmp_path / "b.json", after.tolist()),
    )
    assert (found.more, found.less, found.records) == (30, 0, 400)
    assert found.difference == pytest.approx(30 / 400)
    # The standard error of the mean of the differences, by the textbook.
    error = np.std(after - before) / np.sqrt(400)
    assert found.low == pytest.approx(30 / 400 - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(30 / 400 + 1.96 * error, abs=0.2 * error)
    assert "better, the interval is on one side of 0" in found.lines()


def test_several_answers_outages_and_records_of_one_side(tmp_path: Path) -> None:
    one = evaluation(tmp_path / "a.json", [(1.0, 0.0), None, 1.0], better="lower")
    two = evaluation(tmp_path / "b.json", [1.0, 1.0], better="lower")
    found = compare(one, two)
    assert (found.first, found.second, found.unshared) == (0.25, 1.0, 1)
    assert found.lines()[3].startswith("worse")
    assert compare(two, two).lines()[3] == "no difference is shown: the interval holds 0"


def test_runs_are_compared_by_their_last_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, metrics in (("a", [0.0, 0.0]), ("b", [1.0, 0.0])):
        (tmp_path / name).mkdir()
        evaluation(tmp_path / name / "eval_after.json", metrics)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["difference"] == 0.5


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    one = evaluation(tmp_path / "a.json", [1.0])
    other = evaluation(tmp_path / "b.json", [1.0], task="u")
    with pytest.raises(DataError, match="is of task t"):
        compare(one, other)
    apart = evaluation(tmp_path / "c.json", [])
    with pytest.raises(DataError, match="no record in common"):
        compare(one, apart)
    with pytest.raises(DataError, match=r"no evaluation at .*eval_after"):
        compare(one, tmp_path)
    (tmp_path / "d.json").write_text("[]")
    with pytest.raises(DataError, match="is no result"):
        compare(one, tmp_path / "d.json")
