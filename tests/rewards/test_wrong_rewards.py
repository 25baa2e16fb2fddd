"""What is wrong with the user's own reward function is said in one line, or not accepted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mmrl.cli import main
from mmrl.rewards.own_code import Misreturned
from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, Record

WRONG = {
    "def f(completions, **c): return 1 / 0": "own.py:1: ZeroDivisionError: division by zero",
    "def f(completions, **c): return 'good'": "own.py:1: reward function returned a str: return a",
    "def f(completions, **c): return None": "own.py:1: reward function returned None: return a",
    "def f(completions, **c): return ['1.0']": "own.py:1: reward function returned a str for an",
    "def f(completions, **c): return [float('nan')]": "part 'reward' is nan",
    "def f(completions, answr): return [1.0]": "no column 'answr', which f() needs; the record has:"
    " answer",
    "def f(solution_str): return 1 / 0": "own.py:1: ZeroDivisionError: division by zero",
    "def f(solution_str): return '1.0'": "own.py:1: reward function returned a str for an answer",
    "def f(solution_str, gold): return 1.0": "f() needs 'gold', which verl's form does not give",
}
ROWS = [{"id": "a", "prompt": "p", "answer": "2"}, {"id": "b", "prompt": "p"}]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    Path("d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


@pytest.mark.parametrize(("source", "message"), WRONG.items())
def test_a_wrong_function_is_one_line(
    source: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.py").write_text(source)
    assert main(["tasks", "custom", "params.function=own.py:f", "--data", "d.jsonl"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_words_are_no_rewards_and_truth_values_are() -> None:
    Path("own.py").write_text("def f(completions, answer): return [answer[0]]\n")
    task = load_task("custom", {"function": "own.py:f"})
    for given, earned in ((True, 1.0), (2, 2.0), ("1.0", None)):
        sample = task.ask(Record("1", {"prompt": "p", "answer": given}, Path(".")))
        if earned is None:
            with pytest.raises(Misreturned, match="returned a str for an answer"):
                task.score(sample.gold, Answer("a"))
        else:
            assert task.score(sample.gold, Answer("a")).parts == {"reward": earned}


def test_a_record_without_a_needed_column_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.py").write_text("def near(completions, answer): return [1.0] * len(completions)\n")
    asked = ["--task", "custom", "params.function=own.py:near"]
    assert main(["data", "inspect", "d.jsonl", *asked]) == 0
    out = capsys.readouterr().out
    assert (
        "1 of 2 records" in out and "b: ValueError: no column 'answer', which near() needs" in out
    )
