"""NFT: supervised learning of right answers, and of wrong ones through an implied policy.

arXiv 2505.18116. Groups of one class are dropped; token losses are summed over a constant.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.algorithms.stages.editors import AccuracyBand
from mmrl.algorithms.stages.lengths import OfLongest
from mmrl.objective import Reducer
from mmrl.objectives.implied_policies import NFT
from mmrl.validation import Section

SUMMARY = "negative-aware fine-tuning: likelihood of the implied policies"
PAPER = "arXiv 2505.18116"


class Params(Section):
    group_size: int = Field(16, gt=1)
    epsilon: float = Field(1.0, gt=0)
    negative: float = Field(1.0, ge=0, description="0: rejection sampling")
    weight: Literal["linear", "root", "none"] = "linear"
    length: Annotated[float, OfLongest(1000)] = Field(
        1000.0, gt=0, description="token losses are divided by it"
    )


def build(params: Params) -> Algorithm:
    """Fill editing, credit, objective, reducer and updates."""
    return Algorithm(
        name="nft",
        plan=FixedGroup(params.group_size),
        edit=(AccuracyBand(),),
        credit=GroupCredit(GroupRelative(None)),
        objective=NFT(params.epsilon, params.negative, params.weight),
        reducer=Reducer("constant", params.length),
        updates=Updates(mini_batches=16),
    )
