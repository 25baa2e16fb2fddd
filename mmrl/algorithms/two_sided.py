"""GRPO with two-sided clipping: a cap on the ratio where the advantage is negative.

INTELLECT-2, arXiv 2505.07291. PPO's clip leaves the ratio of a negative advantage unbounded.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.objective import Reducer
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "GRPO with a cap on the ratio of negative advantages too"
PAPER = "arXiv 2505.07291"


class Params(Section):
    group_size: int = Field(16, gt=0)
    cap: float = Field(4.0, gt=1)


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and updates."""
    return Algorithm(
        name="two_sided",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(cap=params.cap),
        reducer=Reducer("token-mean"),
        updates=Updates(mini_batches=8),
    )
