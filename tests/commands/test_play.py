"""`mmrl play`: a record is answered by hand or by its task, in its real environment."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmrl.cli import main
from mmrl.environments.devtools import browser_path
from mmrl.errors import UserError
from mmrl.scoring.tasks import fixture_path
from tests.conftest import TINY


def config(folder: Path, task: str, **params: Any) -> str:
    values = {
        "run": str(folder / "run"),
        "model": {"path": TINY},
        "data": {"task": task, "path": str(fixture_path(task)), "params": params},
        "trainer": {"steps": 1},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def test_turns_are_written_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two turns of two lines, then the end of what is typed: the rest of the turns are empty."""
    typed = "First.\n<answer>up</answer>\n\n\n<answer>down</answer>\nSecond.\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert main(["play", config(tmp_path, "maze_walk"), "--id", "walk_1", "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["id"] == "walk_1"
    assert found["turns"][:3] == [
        "First.\n<answer>up</answer>",
        "<answer>down</answer>\nSecond.",
        "",
    ]
    assert "Walk from the disc" in printed.err and "(earned 0)" in printed.err


def test_one_turn_is_enough_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("<answer>[0, 0, 9, 9]</answer>\n"))
    page = tmp_path / "played.html"
    given = ["play", config(tmp_path, "referring_box", think="none"), "--page", str(page)]
    assert main(given) == 0
    assert "referring_box" not in capsys.readouterr().err
    assert page.read_text().count("<path") == 2, "the gold and what was said"


def test_what_the_environment_said_at_last_is_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "played.html"
    asked = ["play", config(tmp_path, "maze_walk"), "--oracle", "--page", str(page)]
    assert main([*asked, "--id", "walk_0"]) == 0
    text = page.read_text()
    last = text.index("After the last turn")
    assert text.index("&lt;answer&gt;down") < last < text.index("Row 3, column 3.")


def test_an_unknown_record_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", config(tmp_path, "maze_walk"), "--id", "nowhere"]) == 2
    assert "has no record 'nowhere'" in capsys.readouterr().err


def test_the_task_s_own_way_is_played_in_a_real_browser(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every screen is on the page, and every click on the screen it was made at."""
    try:
        browser_path()
    except UserError as error:
        pytest.skip(str(error))
    records = [json.loads(line) for line in fixture_path("web_page").read_text().splitlines()]
    record = max(records, key=lambda each: len(each["path"]))
    page = tmp_path / "played.html"
    asked = ["play", config(tmp_path, "web_page"), "--oracle", "--page", str(page)]
    assert main([*asked, "--id", record["id"], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parts"] == {"done": 1.0, "format": 1.0}
    assert len(found["turns"]) == len(record["path"]) > 1
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == len(record["path"]) + 1, "the last screen too"
    assert text.rindex("After the last turn") < text.rindex("data:image/jpeg;base64,")
    assert text.count('class="point n1"') == sum("box" in step for step in record["path"])
