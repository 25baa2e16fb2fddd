"""GRPO-D: the weight of the KL falls, then rises, over the run.

OThink-MR1, arXiv 2503.16081: from the middle of its range to the lowest at a share of the run,
then to the highest.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.algorithms.stages.schedules import FallThenRise
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "GRPO with a dynamic KL weight"
PAPER = "arXiv 2503.16081"


class Params(Section):
    group_size: int = Field(8, gt=0)
    low: float = Field(0.04, ge=0)
    high: float = Field(0.1, ge=0)
    turn: float = Field(0.3, gt=0, lt=1, description="share of the run where the weight is lowest")


def build(params: Params) -> Algorithm:
    """Fill the KL's schedule; the rest is GRPO."""
    return Algorithm(
        name="grpo_d",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(),
        kl=KL(schedule=FallThenRise(params.low, params.high, params.turn)),
    )
