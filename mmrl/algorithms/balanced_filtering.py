"""Balanced online difficulty filtering: prompts of medium accuracy, refilled to a fixed batch.

arXiv 2504.03380 (a variant: its thresholds are not published). What can be learnt is bounded from
below in proportion to p (1 - p).
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.algorithms.stages.editors import AccuracyBand
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "keeps prompts of medium accuracy (variant)"
PAPER = "arXiv 2504.03380"


class Params(Section):
    group_size: int = Field(8, gt=1)
    low: float = Field(0.2, ge=0, le=1)
    high: float = Field(0.8, ge=0, le=1)
    part: str | None = Field(None, description="reward part that says right or wrong")


def build(params: Params) -> Algorithm:
    """Fill editing; the rest is GRPO."""
    return Algorithm(
        name="balanced_filtering",
        plan=FixedGroup(params.group_size),
        edit=(AccuracyBand(params.low, params.high, inclusive=True, part=params.part),),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(),
    )


def learnability(accuracy: float) -> float:
    """Variance of a 0/1 reward at this accuracy."""
    return accuracy * (1 - accuracy)
