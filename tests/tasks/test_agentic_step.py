from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmrl.scoring.tasks import load_task, resolve_weights, weigh
from mmrl.types import Answer, Record


def grade(solution: str, text: str, **params: Any) -> float:
    task = load_task("agentic_step", params)
    fields = {"image": "a.png", "problem": "q", "solution": solution}
    gold = task.sample(Record("1", fields, Path("root"))).gold
    return task.score(gold, Answer(f"<think>t</think>{text}")).parts["content"]


CODE = "<code>x = 1\n</code>"


@pytest.mark.parametrize(
    ("solution", "text", "expected"),
    [
        (CODE, "<code>x  = 1</code>", 1), (CODE, "<code>y</code>", 0),
        (CODE, "<search>x</search>", 0),
        ("<answer>red kite</answer>", "<answer>Red, kite!</answer>", 1),
        ("<answer>red kite</answer>", "<answer>kite</answer>", 2 / 3),
        ("<answer>red</answer>", "<answer>red</answer><search>red</search>", 0),
        ("<answer>red</answer>", "red", 0), ("<answer>red</answer>", "<answer></answer>", 0),
        ("<search>old red kite</search>", "<search>red kite</search>", 0.8),
        ("<search>old red kite</search>", "<search>a b kite</search>", 0),
        ("<problem>rotation90, dark</problem>", "<problem>dark, Rotation90</problem>", 1),
        ("<problem>rotation90, dark</problem>", "<problem>rotation90</problem>", 0.5),
        ("<problem>rotation90, dark</problem>", "<problem>dark</problem>", 0),
        ("<problem>rotation90, dark</problem>", "<problem>rotation180</problem>", 0),
        ("<problem>dark</problem>", "<problem>dark, rotation90, blur</problem>", 0),
    ],
)  # fmt: skip
def test_content(solution: str, text: str, expected: float) -> None:
    assert grade(solution, text) == pytest.approx(expected)


def test_any_code_as_coded() -> None:
    task = load_task("agentic_step", {"variant": "code"})
    score = task.score(("code", "x = 1"), Answer("<think>t</think><code>anything</code>"))
    weighed = weigh(score, resolve_weights(task, {"content": 1.0, "format": 1.0}))
    assert weighed.reward == pytest.approx(1.9)
    assert grade(CODE, "<answer>x</answer>", variant="code") == 0


@pytest.mark.parametrize("solution", ["", "red", "<answer></answer>", "<answer>a</answer><code>b"])
def test_unusable_gold_raises_value_error(solution: str) -> None:
    with pytest.raises(ValueError):
        grade(solution, "<answer>a</answer>")
