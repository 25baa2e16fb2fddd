"""DeGRPO: the control token that picks short or long thinking is weighed apart from the rest.

Thinkless, arXiv 2505.13379. The paper averages by response, the released code over all tokens of
the batch (`numerics: code`). Right answers earn 1 after the short control token, less after the
long one; wrong ones -1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative, outcomes
from mmrl.algorithms.stages.editors import DropUniform
from mmrl.objective import KL, Aggregation, Reducer
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Stage, with_rewards
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "weighs the control token apart from the response"
PAPER = "arXiv 2505.13379"


class Params(Section):
    group_size: int = Field(8, gt=1)
    control_weight: float = Field(0.001, ge=0)
    short_marker: str = "<short>"
    long_reward: float = Field(0.5, description="of a right answer after long thinking")
    part: str | None = Field(None, description="reward part that says right or wrong")
    numerics: Literal["paper", "code"] = "paper"


@dataclass(frozen=True)
class ByMode(Stage):
    """Right after the short marker 1, right otherwise `long_reward`, wrong -1 [G]."""

    short_marker: str
    long_reward: float
    part: str | None = None

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [with_rewards(group, self.rewards(group)) for group in groups]

    def rewards(self, group: Group) -> Floats:
        """Rewards of a group's responses by how they began."""
        short = np.array([r.text.lstrip().startswith(self.short_marker) for r in group.responses])
        right = outcomes(group, self.part) > 0
        return np.where(right, np.where(short, 1.0, self.long_reward), -1.0)


def build(params: Params) -> Algorithm:
    """Fill shaping, editing, credit, reducer and KL."""
    mean: Aggregation = "seq-mean-token-mean" if params.numerics == "paper" else "token-mean"
    return Algorithm(
        name="degrpo",
        plan=FixedGroup(params.group_size),
        shape=(ByMode(params.short_marker, params.long_reward, params.part),),
        edit=(DropUniform(),),
        credit=GroupCredit(GroupRelative(None)),
        objective=Clipped(),
        reducer=Reducer(mean, lead_tokens=1, lead_weight=params.control_weight),
        kl=KL(0.001),
    )
