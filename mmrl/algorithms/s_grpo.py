"""S-GRPO: a random part of each response's tokens enters the loss (a variant).

arXiv 2504.20834. Its constants are not published.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.algorithms.stages.lengths import OfLongest
from mmrl.algorithms.stages.refiners import RandomTokens
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "trains on a random part of the tokens (variant)"
PAPER = "arXiv 2504.20834"


class Params(Section):
    group_size: int = Field(8, gt=0)
    first: Annotated[int, OfLongest(1024)] = Field(32, ge=0, description="tokens that always count")
    share: float = Field(0.3, ge=0, le=1, description="chance of every later token")
    most: Annotated[int, OfLongest(1024)] = Field(
        256, gt=0, description="tokens of a response in all"
    )


def build(params: Params) -> Algorithm:
    """Fill refining; the rest is GRPO."""
    return Algorithm(
        name="s_grpo",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative()),
        refine=(RandomTokens(params.first, params.share, params.most),),
        objective=Clipped(),
    )
