"""`tools/new_task.py` writes a task that a stranger can edit: it checks, lints and formats."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mmrl.tasks
from mmrl.scoring.check import check

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    module = importlib.import_module("new_task")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "tasks").mkdir()
    return module


def run(tool: Any, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["new_task.py", *words])
    code: int = tool.main()
    return code


def test_a_new_task_keeps_its_promises(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(tool, monkeypatch, "new_colour", "--title", "x" * tool.MAX_TITLE) == 0
    folder = tmp_path / "tasks" / "new_colour"
    monkeypatch.setattr(mmrl.tasks, "__path__", [*mmrl.tasks.__path__, str(tmp_path / "tasks")])
    task = importlib.import_module("mmrl.tasks.new_colour").Task()
    assert task.name == "new_colour"
    found = check(task, folder / "fixture.jsonl")
    assert (found.records, found.problems) == (5, [])


def test_a_new_task_passes_the_linter(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ruff = pytest.importorskip("ruff").__name__
    assert run(tool, monkeypatch, "new_colour", "--title", "x" * tool.MAX_TITLE) == 0
    rules = ("--config", str(TOOLS.parent / "pyproject.toml"), "--no-cache", ".")
    for command in (("check",), ("format", "--check")):
        done = subprocess.run(
            [sys.executable, "-m", ruff, *command, *rules],
            cwd=tmp_path / "tasks" / "new_colour",
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["class"], "lower-case letters"),
        (["2x"], "lower-case letters"),
        (["Colour"], "lower-case letters"),
        (["../colour"], "lower-case letters"),
        (["colour", "--title", 'the "best" one'], "without quotes"),
        (["colour", "--title", "{gold}"], "without quotes"),
        (["colour", "--title", "x" * 51], "at most 50"),
        (["colour", "--title", "a\nb"], "one line"),
        (["there"], "such a task already"),
    ],
)
def test_mistakes_are_one_line(
    tool: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    (tool.ROOT / "tasks" / "there").mkdir()
    assert run(tool, monkeypatch, *words) == 2
    out, err = capsys.readouterr()
    assert not out and message in err and err.count("\n") == 1
    assert [p.name for p in (tool.ROOT / "tasks").iterdir()] == ["there"]
