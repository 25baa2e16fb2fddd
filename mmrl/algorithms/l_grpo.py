"""L-GRPO: short answers are paid for only where a whole group is right (a variant).

The second stage of ConciseR, arXiv 2505.21178; its reward is not published, the reading is
1 + bonus (1 - L / longest). Its first stage is `dapo`, as an earlier phase.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.algorithms.stages.lengths import OfLongest
from mmrl.algorithms.stages.shapers import ShortWhenSolved
from mmrl.objective import Reducer
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "pays short answers where all are right (variant)"
PAPER = "arXiv 2505.21178"


class Params(Section):
    group_size: int = Field(8, gt=1)
    bonus: float = Field(0.5, ge=0)
    longest: Annotated[float, OfLongest(4096)] = Field(
        4096, gt=0, description="tokens at which the bonus is 0"
    )
    part: str | None = Field(None, description="reward part that says right or wrong")


def build(params: Params) -> Algorithm:
    """Fill shaping, objective and reducer."""
    return Algorithm(
        name="l_grpo",
        plan=FixedGroup(params.group_size),
        shape=(ShortWhenSolved(params.bonus, params.longest, params.part),),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(low=0.2, high=0.28),
        reducer=Reducer("token-mean"),
    )
