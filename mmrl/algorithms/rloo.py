"""RLOO: REINFORCE on whole responses, each against the mean reward of the others.

arXiv 2402.14740. The KL stands in the reward. The objective is TRL's: the ratio of the whole
response, clipped; with a single update it is plain REINFORCE.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, LeaveOneOut
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "leave-one-out baseline, whole responses as actions"
PAPER = "arXiv 2402.14740"


class Params(Section):
    group_size: int = Field(4, gt=1)
    single: Literal["zero", "raw"] = Field(
        "zero", description="advantage of a lone scorable answer; raw is its reward"
    )


def build(params: Params) -> Algorithm:
    """Fill credit, objective and KL (k1, in the reward)."""
    return Algorithm(
        name="rloo",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(LeaveOneOut(params.single)),
        objective=Clipped(ratio="sequence-sum"),
        kl=KL(0.05, "k1", "reward"),
    )
