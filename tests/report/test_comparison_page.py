"""Two run folders on one page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmrl.cli import main
from mmrl.report.comparison_page import changed_records, differing, names_of, render

from .conftest import rollout

MakeRun = Callable[..., Path]


def evaluation(*metrics: float | None, text: str = "said") -> dict[str, Any]:
    rows = [{"id": f"r{i}", "text": text, "metric": m} for i, m in enumerate(metrics)]
    return {"task": "count", "metric_name": "accuracy", "better": "higher", "answers": rows}


@pytest.fixture
def two(make_run: MakeRun, tmp_path: Path) -> tuple[Path, Path]:
    """Runs with other learning rates, curves, answers, and one question in common."""
    runs = []
    for name, rate in (("one", 1), ("two", 2)):
        made = make_run(
            rollouts=[rollout(1, id="both"), rollout(2, id=f"only {name}")],
            metrics=[{"step": s, "reward/mean": rate * s, f"own/{name}": 1.0} for s in (1, 2, 3)],
            config=f"seed: 0\noptimizer: {{learning_rate: {rate}}}\n",
        )
        after = evaluation(1.0, 0.0, rate - 1.0, text=f"<b>{name}")
        (made / "eval_after.json").write_text(json.dumps(after))
        runs.append(made.rename(tmp_path / name))
    return runs[0], runs[1]


def test_what_differs_is_on_the_page(two: tuple[Path, Path]) -> None:
    page = render(*two, words=["better by far"])
    assert "optimizer.learning_rate" in page and '<td dir="auto">seed</td>' not in page
    assert "reward/mean" in page and "own/one" not in page
    assert "&lt;b&gt;two" in page and "<b>two" not in page
    assert page.count('class="panel card paired"') == 1 and "only one" not in page
    assert "better by far" in page and "1 held-out records" in page
    assert len(render(*two, max_bytes=1000)) < len(page), "groups are left out, nothing else"


def test_records_that_changed_most_come_first() -> None:
    found = list(changed_records(evaluation(0.0, 1.0, None, 0.5), evaluation(0.2, 0.0, 1.0, 0.5)))
    assert [(each.id, each.metrics) for each in found] == [("r1", (1.0, 0.0)), ("r0", (0.0, 0.2))]
    assert list(changed_records({}, {"answers": [3, {"id": 1}]})) == []


def test_settings_of_every_depth_are_compared() -> None:
    one = {"a": 1, "data": [{"task": "x"}], "b": {"c": {"d": 1}}}
    two = {"a": 1, "data": [{"task": "y"}, {"task": "z"}], "b": {"c": {}}}
    assert list(differing(one, two)) == [
        ("data.0.task", "x", "y"),
        ("b.c.d", "1", "\N{EN DASH}"),
        ("data.1.task", "\N{EN DASH}", "z"),
        ("b.c", "\N{EN DASH}", "{}"),
    ]


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    assert names_of(tmp_path / "a", tmp_path / "b") == ("a", "b")
    assert names_of(tmp_path / "x" / "run", tmp_path / "y" / "run") == ("x/run", "y/run")


def test_the_command_writes_it(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["compare", *map(str, two), "--page", str(tmp_path / "new" / "c.html")]
    assert main(asked) == 0
    assert "accuracy 0.3333 -> 0.6667 on 3 records" in capsys.readouterr().out
    assert "difference +0.3333" in (tmp_path / "new" / "c.html").read_text()
    (two[0] / "eval_after.json").unlink()
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"page": str(tmp_path / "new" / "c.html")}
    (two[0] / "config.yaml").unlink()
    assert main(asked) == 2 and "no run folder" in capsys.readouterr().err
