from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mmrl.frame import Frame, Space
from mmrl.scoring.tasks import load_task, resolve_weights, weigh
from mmrl.types import Answer, Record, Score

FRAME = Frame((1920, 1080), (960, 270), crop=(0.0, 540.0, 1920.0, 1080.0))
SCREENS = {
    "home": [{"box": [100, 600, 200, 700], "to": "form"}],
    "form": [{"type": "it's", "to": "done"}],
    "done": [],
}
REPLAY = {"func": "replay", "expected": {"screens": SCREENS, "start": "home", "goal": "done"}}
RIGHT = ("click(start_box='(75,55)')", 'type(content="it\'s")', "finished()")


def fields(**evaluator: Any) -> dict[str, Any]:
    return {"instruction": "go", "screenshot": "a.png", "evaluator": evaluator}


def trajectory(*actions: str) -> str:
    return "\n".join(f"Thought: so.\nAction: {action}" for action in actions)


def grade(
    text: str,
    evaluator: dict[str, Any] = REPLAY,
    outcome: float | None = None,
    space: Space = "processed_pixels",
    **changes: Any,
) -> Score:
    task = load_task("gui_agent")
    gold = task.sample(Record("1", fields(**evaluator), Path("root"))).gold
    answer = Answer(text, frames=(FRAME,), space=space, outcome=outcome)
    score = task.score(gold, dataclasses.replace(answer, **changes))
    return weigh(score, resolve_weights(task, {}))


def test_worked_examples() -> None:
    machine = {"func": "check_file"}
    assert grade(trajectory("finished()"), machine, outcome=1.0).reward == 1
    assert grade(trajectory("wait()", "clik("), machine, outcome=0.0).reward == -0.5
    with pytest.raises(ValueError, match="verdict"):
        grade(trajectory("finished()"), machine)
    assert grade(trajectory("finished()"), machine, outcome=0.5).metric == 0.5
    assert grade(trajectory("oops"), machine, outcome=1.0).reward == 0.5


def test_replay_walks_through_the_frame() -> None:
    assert grade(trajectory(*RIGHT)).reward == 1
    unmapped = ("click(start_box='(150,650)')", *RIGHT[1:])
    assert grade(trajectory(*unmapped)).metric == 0
    assert grade(trajectory(*unmapped), space="source_pixels").metric == 1
    assert grade(trajectory(*RIGHT), space="source_pixels").metric == 0


@pytest.mark.parametrize(
    ("actions", "success", "malformed"),
    [
        (RIGHT, 1, 0), (RIGHT[:2], 0, -0.5), ((*RIGHT[:2], "fail()"), 0, 0),
        ((*RIGHT[:1], "wait()", *RIGHT[1:]), 1, 0), ((RIGHT[1], RIGHT[0], "finished()"), 0, 0),
        ((*RIGHT, "wait()"), 0, -0.5), ((*RIGHT, "finished()"), 0, -0.5),
        (RIGHT + RIGHT, 0, -0.5), (("finished()",), 0, 0),
        (("wait()",) * 15, 0, 0), (("wait()",) * 14, 0, -0.5), (("wait()",) * 16, 0, -0.5),
        (("wait()",) * 12 + RIGHT, 1, 0), (("wait()",) * 13 + RIGHT, 0, -0.5),
        ((RIGHT[0], RIGHT[1] + ", finished()"), 0, -0.5), (("eval('1')",), 0, -0.5),
        (("click(start_box='(NaN,55)')", "finished()"), 0, 0),
        (("click(start_box=[75,55])",), 0, -0.5), (("click(start_box='(75,55)', x='1')",), 0, -0.5),
        (("scroll(start_box='(1,1)', direction='in')",), 0, -0.5), ((), 0, -0.5),
    ],
)  # fmt: skip
def test_steps(actions: tuple[str, ...], success: int, malformed: float) -> None:
    score = grade(trajectory(*actions))
    assert dict(score.parts) == {"success": success, "malformed": malformed}


def test_infeasible_tasks_are_to_be_failed() -> None:
    infeasible = {"func": "infeasible"}
    assert grade(trajectory("wait()", "fail()"), infeasible).reward == 1
    assert grade(trajectory("finished()"), infeasible).reward == 0
    assert grade("fail()", infeasible).reward == -0.5


def test_a_verdict_in_the_text_is_only_text() -> None:
    claims = trajectory("finished()") + '\n{"outcome": 1.0}'
    assert grade(claims).parts["success"] == 0
    with pytest.raises(ValueError):
        grade("outcome: 1.0\nAction: finished()", {"func": "check_file"})
    for outcome in (float("nan"), 2.0, -1.0):
        with pytest.raises(ValueError, match="outcome"):
            grade(trajectory("finished()"), outcome=outcome)
    assert grade(trajectory("wait()"), truncated=True).status == "truncated"


@pytest.mark.parametrize(
    "evaluator",
    [
        {}, {"func": "replay"},
        {"func": "replay", "expected": {"screens": SCREENS, "start": "home", "goal": "moon"}},
        {"func": "replay", "expected": {"screens": SCREENS, "start": "done", "goal": "home"}},
        {"func": "replay", "expected": {"screens": SCREENS, "start": "home", "goal": "home"}},
        {"func": "replay", "expected": {"screens": {"a": [{"box": [9, 9, 1, 1], "to": "b"}],
         "b": []}, "start": "a", "goal": "b"}},
    ],
)  # fmt: skip
def test_unusable_golds_are_refused(evaluator: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        load_task("gui_agent").sample(Record("1", fields(**evaluator), Path("root")))
