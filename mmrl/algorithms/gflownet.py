"""GFlowNet fine-tuning: answers come to be sampled in proportion to their rewards.

GFlowVLM, arXiv 2503.06514: the log-variance form of trajectory balance, which needs a group and no
flows, or sub-trajectory and detailed balance, for which a critic learns the flow of every state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.algorithms.stages.flow_balance import FlowBalance
from mmrl.objective import Reducer
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.objectives.reference_regressions import TrajectoryBalance
from mmrl.stage import Context, Stage, with_rewards
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "samples in proportion to rewards, by trajectory balance within a group"
PAPER = "arXiv 2503.06514"


class Params(Section):
    group_size: int = Field(4, gt=1)
    floor: float = Field(0.01, gt=0, description="reward of an answer that earned less")
    balance: Literal["trajectory", "subtrajectory", "detailed"] = Field(
        "trajectory", description="what is to balance: whole episodes, all stretches, or turns"
    )
    decay: float = Field(
        0.9, gt=0, le=1, description="weight of a stretch by each of its turns; of subtrajectory"
    )


def unused(params: Params) -> dict[str, str]:
    """Whole episodes have no stretches to weigh."""
    return {} if params.balance == "subtrajectory" else {"decay": "only stretches are weighed"}


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
    if params.balance != "trajectory":
        return Algorithm(
            name="gflownet",
            plan=FixedGroup(params.group_size),
            shape=(LogReward(params.floor),),
            credit=FlowBalance(params.balance, params.decay),
            objective=Clipped(),
            reducer=Reducer("seq-mean-token-sum"),
            always_on_policy=True,
        )
    return Algorithm(
        name="gflownet",
        plan=FixedGroup(params.group_size),
        shape=(LogReward(params.floor),),
        credit=GroupCredit(GroupRelative(None)),
        objective=TrajectoryBalance(),
        reducer=Reducer("group-mean"),
    )
