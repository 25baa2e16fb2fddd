"""Scores of the commonest shape: an accuracy of the one answer region, and its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mmrl.rewards.grammar import Region
from mmrl.rewards.parsed import Parsed
from mmrl.task import RewardPart
from mmrl.types import Answer, Score

Extractor = Literal["strict", "official"]
"""Whose reading the metric uses. The reward is always the strict one."""

ACCURACY_AND_FORMAT: Mapping[str, RewardPart] = {
    "accuracy": RewardPart(0.0, 1.0),
    "format": RewardPart(0.0, 1.0),
}
"""The unweighted sum of most tag-based systems, 0 to 2."""

MAX_OFFICIAL_CHARACTERS = 8_192


def grade(
    region: Region,
    parsed: Parsed[Any],
    accuracy: float,
    metric: float | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> Score:
    """Score an answer region: `parsed` says how reading went; the metric defaults to accuracy."""
    return Score(
        {"accuracy": float(accuracy), "format": float(region.well_formed)},
        metric=float(accuracy if metric is None else metric),
        status=parsed.status,
        reason=parsed.reason,
        evidence=evidence or {},
    )


def official_text(region: Region, answer: Answer) -> str:
    """What a benchmark's own extractor reads: the answer region, or all that follows the thought.

    Capped at its last `MAX_OFFICIAL_CHARACTERS`, where answers stand.
    """
    if region.answer.value is not None:
        return region.answer.value
    return answer.text[-MAX_OFFICIAL_CHARACTERS:].rpartition("</think>")[2].strip()


def first_region_or_text(text: str) -> str:
    """What R1-V and its forks compare: the first `<answer>` region, or the whole completion."""
    _, opened, rest = text.partition("<answer>")
    inner, closed, _ = rest.partition("</answer>")
    return (inner if opened and closed else text).strip()


def tagged_solution(value: object) -> str:
    """A gold column of those data sets: the text, with its `<answer>` tags taken off.

    An empty gold raises ValueError, since it would equal every empty answer.
    """
    text = first_region_or_text(str(value))
    if not text:
        raise ValueError("the gold answer is empty")
    return text
