"""GFlowNet fine-tuning: answers come to be sampled in proportion to their rewards.

GFlowVLM, arXiv 2503.06514, with its log-variance form of trajectory balance; sub-trajectory and
detailed balance, which learn a flow of every state, are not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.objective import Reducer
from mmrl.objectives.reference_regressions import TrajectoryBalance
from mmrl.stage import Context, Stage, with_rewards
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "samples in proportion to rewards, by trajectory balance within a group"
PAPER = "arXiv 2503.06514"


class Params(Section):
    group_size: int = Field(4, gt=1)
    floor: float = Field(0.01, gt=0, description="reward of an answer that earned less")


@dataclass(frozen=True)
class LogReward(Stage):
    """Take the logarithm of rewards, those below `floor` as `floor`."""

    floor: float = 0.01

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [with_rewards(group, self.logs(group.rewards)) for group in groups]

    def logs(self, rewards: Floats) -> Floats:
        """Log-rewards [G]; NaN, which is unscorable, stays so."""
        return np.log(np.maximum(rewards, self.floor))


def build(params: Params) -> Algorithm:
    """Fill shaping, credit, objective and reducer."""
    return Algorithm(
        name="gflownet",
        plan=FixedGroup(params.group_size),
        shape=(LogReward(params.floor),),
        credit=GroupCredit(GroupRelative(None)),
        objective=TrajectoryBalance(),
        reducer=Reducer("group-mean"),
    )
