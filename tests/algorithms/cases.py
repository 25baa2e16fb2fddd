"""The shared inputs of the worked examples, and a short way to evaluate an algorithm on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmrl.stage import Context
from mmrl.train.algorithm_case import evaluate_case
from mmrl.types import Extra, Group, Prompt, Response, Sample, Score

R = [1.0, 0.0, 0.5, 0.0]
NEW = [[-1.0, -0.5, -2.0], [-0.7, -1.2]]
OLD = [[-1.1, -0.9, -1.6], [-0.7, -1.0]]
REF = [[-1.2, -0.5, -1.8], [-0.9, -1.1]]


def tokens(rewards: Sequence[float] = (1.0, -1.0), **more: Any) -> list[dict[str, Any]]:
    """Two sequences of three and two tokens with new, old and reference log-probs."""
    return [
        {"reward": reward, "logprobs": new, "old_logprobs": old, "ref_logprobs": ref, **more}
        for reward, new, old, ref in zip(rewards, NEW, OLD, REF, strict=True)
    ]


def evaluate(
    name: str, groups: Sequence[Sequence[Mapping[str, Any]]], **more: Any
) -> dict[str, Any]:
    """Evaluate a case; keywords that are no fields of a case are parameters."""
    fields = ("meta", "greedy", "step", "total_steps", "prompts_per_step", "update", "state")
    fields += ("mismatched",)
    case = {key: more.pop(key) for key in fields if key in more}
    return evaluate_case(name, {"groups": groups, "params": more, **case})


def advantages(name: str, rewards: Sequence[Any], **more: Any) -> list[float | None]:
    """The advantage of every response of one group of one-token responses, by its reward."""
    return first_tokens(evaluate(name, [[{"reward": r} for r in rewards]], **more))[0]


def group(
    rewards: Sequence[float | None],
    lengths: Sequence[int] | None = None,
    *,
    sample: str = "q",
    variant: str = "",
    truncated: bool = False,
    **extra: Any,
) -> Group:
    """A group without a model: responses of these lengths (default 1), token t is id t."""
    nothing = np.zeros(0, dtype=np.int64)
    asked = Sample(sample, "t", (), gold=None, variant=variant)
    prompt = Prompt(asked, (), nothing, nothing[None], 0, (), "unit")
    responses = tuple(
        Response(np.arange(n), -0.1 * np.arange(1.0, n + 1), "", "length" if truncated else "stop")
        for n in lengths or [1] * len(rewards)
    )
    scores = tuple(Score({}, None, reward=reward) for reward in rewards)
    return Group(prompt, responses, scores, Extra(**extra))


def first_tokens(result: Mapping[str, Any]) -> list[list[float | None]]:
    """The first token's advantage of every response, group by group."""
    return [[row and row[0] for row in group] for group in result["advantages"]]


def context(step: int = 1, total: int = 1, **state: Any) -> Context:
    """A context for stages that are called by themselves."""
    return Context(step, total, 1, np.random.default_rng(0), dict(state))


def padded(values: Any) -> Any:
    """Fill the rows of a ragged table with zeros; anything else as it is."""
    if isinstance(values, list | tuple) and values and isinstance(values[0], list | tuple):
        width = max(len(row) for row in values)
        return [[*row, *[0.0] * (width - len(row))] for row in values]
    return values
