"""Reinforce-Rej: raw rewards, without the groups that are all right or all wrong.

Minimal-RL, arXiv 2504.11343. Rewards must be +1 and -1: with 0 and 1 it never pushes a wrong
answer down (the released scorer returns 0 and 1).
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, RawReward
from mmrl.algorithms.stages.editors import DropUniform
from mmrl.objective import KL, Reducer
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "raw rewards, groups without contrast dropped"
PAPER = "arXiv 2504.11343"


class Params(Section):
    group_size: int = Field(4, gt=0)


def build(params: Params) -> Algorithm:
    """Fill editing, credit, objective, reducer, KL and updates."""
    return Algorithm(
        name="reinforce_rej",
        plan=FixedGroup(params.group_size),
        edit=(DropUniform(),),
        credit=GroupCredit(RawReward()),
        objective=Clipped(),
        reducer=Reducer("token-mean"),
        kl=KL(0.001),
        updates=Updates(mini_batches=4),
    )
