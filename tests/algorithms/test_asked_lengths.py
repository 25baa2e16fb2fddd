"""A length that was asked for is paid for by hand arithmetic, and a record without one refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mmrl.algorithms.stages.asked_lengths import DoubtBudget, LengthTarget
from mmrl.errors import UserError
from mmrl.scoring.tasks import load_task
from mmrl.types import Group, Record, Text
from tests.algorithms.cases import context, group


def asking(length: int | None) -> Group:
    """Answers of 2, 5 and 3 tokens that earned 1, 0 and 1."""
    made = group([1.0, 0.0, 1.0], lengths=[2, 5, 3])
    meta = {} if length is None else {"target_length": length}
    sample = dataclasses.replace(made.prompt.sample, meta=meta)
    return dataclasses.replace(made, prompt=dataclasses.replace(made.prompt, sample=sample))


def test_each_token_off_costs_alpha() -> None:
    (shaped,) = LengthTarget(0.1)([asking(3)], context())
    assert shaped.rewards == pytest.approx([0.9, -0.2, 1.0])


def test_a_sample_without_a_length_is_refused() -> None:
    with pytest.raises(UserError, match="asks for no length"):
        LengthTarget()([asking(None)], context())


def test_the_task_says_it_in_the_prompt() -> None:
    task = load_task("math")
    fields = {"problem": "What is 1 + 1?", "answer": "2", "target_length": 2000}
    sample = task.ask(Record("a", fields, Path("x.jsonl")))
    (part,) = sample.parts
    assert isinstance(part, Text) and part.text.endswith("Think for 2000 tokens.")
    assert sample.meta["target_length"] == 2000
    plain = task.ask(Record("a", {**fields, "target_length": None}, Path("x.jsonl")))
    assert "tokens" not in "".join(p.text for p in plain.parts if isinstance(p, Text))
    assert "target_length" not in plain.meta
    assert np.isfinite(task.score(sample.gold, _answer(sample.target)).parts["accuracy"])


@pytest.mark.parametrize(
    ("difficulty", "expected"),
    [
        # Lengths 2, 5 and 3. Easy: 2 tokens, 0.25 less for each more.
        (1.0, [1.0, 0.25, 0.75]),
        (3.5, [1.0, 1.0, 1.0]),
        # Hard: 1 token and twice the mean doubt of the answer: budgets 2, 3 and 1.
        (5.0, [1.0, 0.5, 0.5]),
    ],
)
def test_a_budget_follows_difficulty_and_doubt(difficulty: float, expected: list[float]) -> None:
    doubts = [np.array([0.5, 0.5]), np.array([1.0, 1.0, 1.0, 1.0, 1.0]), np.zeros(3)]
    made = group([1.0, 1.0, 1.0], lengths=[2, 5, 3], indecision=doubts)
    sample = dataclasses.replace(made.prompt.sample, meta={"difficulty_score": difficulty})
    made = dataclasses.replace(made, prompt=dataclasses.replace(made.prompt, sample=sample))
    stage = DoubtBudget(easy=2, hard=1, slope=4, scale=2)
    (shaped,) = stage([made], context())
    assert shaped.rewards == pytest.approx(expected)
    with pytest.raises(UserError, match="has no difficulty"):
        stage([group([1.0], lengths=[2], indecision=doubts[:1])], context())
    with pytest.raises(UserError, match="two likeliest"):
        stage(
            [dataclasses.replace(made, extra=dataclasses.replace(made.extra, indecision=None))],
            context(),
        )


def _answer(text: str | None):  # type: ignore[no-untyped-def]
    from mmrl.types import Answer

    return Answer(text or "")
