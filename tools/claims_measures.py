"""What claims count: a number of a run, from its result, its metrics or its rollouts."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrl.runlog.journal import Journal

EASY, HARD = 2, 5
"""A canvas with so many digits at most is easy, one with so many at least is hard."""

Groups = Sequence[Mapping[str, Any]]
"""Rows of rollouts.jsonl."""


def measured(run: Path, name: str, last: int | None = None) -> float:
    """A number of a run by its name, over its last steps or all of them."""
    if name == "accuracy":
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        return float(result["after"])
    metrics = list(Journal(run / "metrics.jsonl").rows())
    steps = [row["step"] for row in metrics][-(last or 0) :]
    if name in OF_GROUPS:
        groups = [g for g in Journal(run / "rollouts.jsonl").rows() if g["step"] in set(steps)]
        return OF_GROUPS[name](groups)
    if name == "gradient_power":
        return statistics.mean(row["train/grad_norm"] ** 2 for row in metrics[-len(steps) :])
    return statistics.mean(row[name] for row in metrics[-len(steps) :] if row.get(name) is not None)


def responses(groups: Groups, *, right: bool) -> Iterable[Mapping[str, Any]]:
    """The answers that are right, or those that are not."""
    for group in groups:
        yield from (r for r in group["responses"] if (r["metric"] == 1) == right)


def right_length(groups: Groups) -> float:
    """Tokens of a right answer."""
    return statistics.mean(r["length"] for r in responses(groups, right=True))


def wrong_length(groups: Groups) -> float:
    """Tokens of a wrong answer."""
    return statistics.mean(r["length"] for r in responses(groups, right=False))


def longer_where_hard(groups: Groups) -> float:
    """Tokens by which answers to hard questions are longer than those to easy ones."""

    def length(among: Groups) -> float:
        return statistics.mean(r["length"] for group in among for r in group["responses"])

    hard = [g for g in groups if g["gold"] >= HARD]
    return length(hard) - length([g for g in groups if g["gold"] <= EASY])


def without_signal(groups: Groups) -> float:
    """Share of the questions whose answers, over all of their variants, earn the same."""
    earned: dict[tuple[int, str], set[float]] = {}
    for group in groups:
        known = {r["reward"] for r in group["responses"] if r["reward"] is not None}
        earned.setdefault((group["step"], group["id"]), set()).update(known)
    return statistics.mean(len(found) < 2 for found in earned.values())


OF_GROUPS: Mapping[str, Callable[[Groups], float]] = {
    "right_length": right_length,
    "wrong_length": wrong_length,
    "longer_where_hard": longer_where_hard,
    "without_signal": without_signal,
}

MEANS: Mapping[str, str] = {
    "accuracy": "held-out accuracy, 200 canvases, greedy",
    "gradient_power": "mean squared norm of the gradient",
    "right_length": "tokens of a right answer",
    "wrong_length": "tokens of a wrong answer",
    "longer_where_hard": f"tokens for {HARD} digits or more, less those for up to {EASY}",
    "without_signal": "questions whose answers all earn the same",
    "train/rows": "answers trained on a step",
    "train/tokens": "tokens trained on a step",
    "train/entropy": "entropy of a token, nats",
    "train/grad_norm": "norm of the gradient",
    "train/clip_share": "tokens that lose their gradient to the clip",
    "train/value_explained": "variance of returns that values explain",
    "train/kl": "KL to the reference a token",
    "share/zero_variance": "trained groups whose answers all earn the same",
    "length/mean": "tokens of an answer",
    "metric/mean": "accuracy of sampled answers",
    "prompts/drawn": "questions asked a step",
}
"""The measures in words."""
