"""`mmrl score` takes what `mmrl eval` leaves, and a bad gold costs its own record only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmrl.cli import main
from mmrl.scoring.tasks import fixture_path
from tests.conftest import TINY


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with records of boxes, whose answers mean the pixels that the model saw."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(fixture_path("digit_box").parent, folder, dirs_exist_ok=True)
    asked = ["--task", "digit_box", "--data", str(folder / "fixture.jsonl"), "--model", TINY]
    sampled = ["--samples", "2", "--temperature", "0.5", "--max-new-tokens", "24"]
    assert main(["eval", *asked, *sampled, "--out", str(folder / "e.json")]) == 0
    return folder


def scored(folder: Path, answers: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    words = ["score", "digit_box", "--data", str(folder / "fixture.jsonl")]
    capsys.readouterr()
    assert (
        main([*words, "--answers", str(answers), "--out", str(folder / "s.jsonl"), "--json"]) == 0
    )
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("name", ["e.json", "e.answers", "e.answers/answers.jsonl"])
def test_an_evaluations_answers_score_as_they_did(
    name: str, evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((evaluated / "e.json").read_text())
    found = scored(evaluated, evaluated / name, capsys)
    assert found["answers"] == 2 * result["records"] and not found["unanswered"]
    lines = [json.loads(line) for line in (evaluated / "s.jsonl").read_text().splitlines()]
    expected = [(row["id"], row["metric"], row["status"]) for row in result["answers"]]
    assert [(row["id"], row["metric"], row["status"]) for row in lines] == expected
    assert len({row["metric"] for row in lines}) > 1
    for key in ("metric", "low", "high", "samples", "truncated", "unparsable"):
        assert found["evaluation"][key] == result[key], key


def test_a_result_without_its_folder_still_has_texts(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(evaluated / "e.json", tmp_path / "alone.json")
    found = scored(evaluated, tmp_path / "alone.json", capsys)
    assert found["answers"] == 2 * found["evaluation"]["records"]
    (tmp_path / "other.json").write_text("[1]")
    words = ["score", "digit_box", "--data", str(evaluated / "fixture.jsonl"), "--out", "x"]
    assert main([*words, "--answers", str(tmp_path / "other.json")]) == 2
    assert "is no result of `mmrl eval`" in capsys.readouterr().err


def test_one_bad_gold_costs_its_own_record(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(evaluated, folder)
    rows = [json.loads(line) for line in (folder / "fixture.jsonl").read_text().splitlines()]
    rows[1]["box"] = "nowhere"
    (folder / "fixture.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = scored(folder, folder / "e.answers", capsys)
    assert list(found["refused"]) == [rows[1]["id"]]
    assert found["evaluation"]["records"] == len(rows) - 1
    lines = [json.loads(line) for line in (folder / "s.jsonl").read_text().splitlines()]
    spoilt = [row for row in lines if row["id"] == rows[1]["id"]]
    assert [row["status"] for row in spoilt] == ["unscorable"] * 2
    assert all(row["reward"] is None for row in spoilt)
