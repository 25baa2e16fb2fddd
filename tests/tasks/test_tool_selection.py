from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, Record, Score

ANSWERS = {"": "10", "0": "100", "1": "96", "2": "10", "0,2": "99", "3": None}


def fields(**changes: Any) -> dict[str, Any]:
    base = {"imgname": "a.png", "query": "q", "label": "100", "tools": list("abcd")}
    return {**base, "answers": ANSWERS, **changes}


def grade(chosen: str, variant: str = "strict", **changes: Any) -> Score:
    task = load_task("tool_selection", {"variant": variant})
    gold = task.sample(Record("1", fields(**changes), Path("root"))).gold
    return task.score(gold, Answer(f"<think>t</think><answer>{chosen}</answer>"))


def test_worked_examples() -> None:
    assert grade("0").parts["outcome"] == 1.0
    harm = {"answers": {"": "100", "0": "100", "1": "7"}}
    assert grade("1", **harm).parts["outcome"] == -0.5
    assert grade("2").parts["outcome"] == 0.0
    # right either way
    assert grade("0", **harm).parts["outcome"] == 1.0


@pytest.mark.parametrize(("chosen", "right"), [("1", 1), ("2, 0", 1), ("0,2", 1), ("2", 0)])
def test_tool_sets_have_no_order(chosen: str, right: int) -> None:
    assert grade(chosen).metric == right


@pytest.mark.parametrize(
    "chosen",
    ["", "0 2", "0,0", "4", "-1", "0,", "0.5", "all", "\uff10", "0,1,2,3,0", "[0]", "1e0", "0;1"],
)
def test_unreadable_choices_cost_as_much_as_harm(chosen: str) -> None:
    score = grade(chosen)
    assert (score.parts["outcome"], score.metric) == (-0.5, 0)
    assert score.status in ("missing", "malformed")
    assert grade(chosen, "code").parts["outcome"] == 0


@pytest.mark.parametrize("chosen", ["3", "1,2"])
def test_an_outcome_that_was_not_computed_is_unscorable(chosen: str) -> None:
    with pytest.raises(ValueError, match="no outcome"):
        grade(chosen)


@pytest.mark.parametrize(
    "changes",
    [
        {"answers": {"0": "1"}}, {"answers": {"": "1"}}, {"answers": {"": "1", "9": "1"}},
        {"answers": {"": "1", "0,1": "1", "1,0": "2"}}, {"label": ""}, {"query": " "},
    ],
)  # fmt: skip
def test_unusable_records_raise_value_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        load_task("tool_selection").sample(Record("1", fields(**changes), Path("root")))


@pytest.mark.parametrize(
    ("compare", "label", "answer", "right"),
    [
        ("chart", "100", "104", 1.0),
        ("math", "100", "104", 0.0),
        ("math", "\\frac{1}{2}", "0.5", 1.0),
        ("text", "two", "Two", 1.0),
        ("text", "2", "2.0", 0.0),
    ],
)
def test_when_the_frozen_model_is_right(
    compare: str, label: str, answer: str, right: float
) -> None:
    task = load_task("tool_selection", {"compare": compare})
    answers = {"": "nothing like it", "0": answer}
    sample = task.sample(Record("1", fields(label=label, answers=answers), Path("root")))
    assert task.score(sample.gold, Answer("<think>a</think><answer>0</answer>")).metric == right
