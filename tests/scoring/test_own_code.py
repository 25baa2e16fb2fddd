"""What is wrong with the user's own task is said in one line, with the line of their file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mmrl.cli import main
from mmrl.scoring.pool import Scorer, StepJob, TaskSpec
from mmrl.types import Answer

TASK = """
from dataclasses import dataclass
from typing import ClassVar

from mmrl import task as contract
from mmrl.task import RewardPart
from mmrl.types import MediaRef, Observation, Sample, Score, Text


@dataclass(frozen=True)
class Task(contract.Task):
    name: ClassVar[str] = "guess"
    summary: ClassVar[str] = "guess a number"
    parts: ClassVar = {{"found": RewardPart(0.0, 1.0)}}
    metric: ClassVar[str] = "found"
    world: ClassVar[str] = "{world}"

    def sample(self, record):
        start = Observation({{"start": {{"number": 3}}, "actions": []}}, key="start")
        return Sample(record.id, self.name, (Text("?"),), "3", target="3", start=start, turns=2)

    def score(self, gold, answer):
        return Score({{"found": answer.outcome or 0.0}}, answer.outcome or 0.0)
"""
STEP = """
    def step(self, gold, state, answer):
        {body}
"""
ENDS = "return Observation(state, key='end', outcome=float(answer.text == gold), done=True)"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.jsonl").write_text('{"id": "one"}\n')
    return tmp_path


def written(body: str, world: str = "") -> None:
    text = TASK.format(world=world) + (STEP.format(body=body) if body else "")
    Path("env.py").write_text(text)


BROKEN = {
    "": "task 'guess' has episodes (`start`), and no `step` for a turn",
    "return state['tries']": "env.py:26: KeyError: 'tries'",
    "return 'warm'": "env.py:25: `step` returned a str: return an Observation",
    "return Observation({1, 2}, key='a')": "env.py:25: `step` gave what is no plain JSON",
    "return Observation(state, key=5)": "env.py:25: `step` gave a text or a key that is no string",
    "return Observation(state, key='a', parts=(MediaRef('image', b'no picture'),))": (
        "what `step` showed in turn 1: "
    ),
}


@pytest.mark.parametrize(("body", "message"), BROKEN.items())
@pytest.mark.parametrize("flags", [(), ("--check",)])
def test_a_broken_step_is_said_in_one_line(
    body: str, message: str, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    written(body)
    assert main(["tasks", "env.py:Task", "--data", "d.jsonl", *flags]) == 2
    said = capsys.readouterr()
    assert message in (said.out if flags else said.err)
    assert said.err.count("\n") == 1 and "Traceback" not in said.err


def test_a_sound_task_is_played(capsys: pytest.CaptureFixture[str]) -> None:
    written(ENDS)
    assert main(["tasks", "env.py:Task", "--data", "d.jsonl"]) == 0
    assert "good: reward 1 (found 1; ok) for '3'" in capsys.readouterr().out
    assert main(["tasks", "env.py:Task", "--data", "d.jsonl", "--check"]) == 0


def test_a_world_is_not_judged_by_its_reader_alone(capsys: pytest.CaptureFixture[str]) -> None:
    written(
        "return Observation({**state, 'actions': [*state['actions'], answer.text]}, key='x')",
        world="env:world",
    )
    for flags in ((), ("--check",)):
        assert main(["tasks", "env.py:Task", "--data", "d.jsonl", *flags]) == 0
        out = capsys.readouterr().out
        assert "`mmrl play CONFIG --oracle` plays a record" in out and "good:" not in out


def test_a_worker_names_the_line_too() -> None:
    written("return state['tries']")
    state = json.loads('{"start": {}, "actions": []}')
    with Scorer({"g": TaskSpec("env.py:Task")}, workers=1, timeout_seconds=9.0) as scorer:
        (found,) = scorer.step([StepJob("g", "3", state, Answer("3", turns=("3",)))])
    assert found == "exception: env.py:26: KeyError: 'tries'"
