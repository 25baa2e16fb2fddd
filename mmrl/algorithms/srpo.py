"""SRPO: history resampling; over-long responses stay out of the loss.

Kwai, arXiv 2504.14286.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.algorithms.stages.refiners import MaskTruncated
from mmrl.algorithms.stages.samplers import DropSolved
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "drops samples that every response got right, epoch by epoch"
PAPER = "arXiv 2504.14286"


class Params(Section):
    group_size: int = Field(8, gt=1)
    part: str | None = Field(None, description="reward part that says right or wrong")


def build(params: Params) -> Algorithm:
    """Fill the prompt sampler and refining; the rest is GRPO."""
    return Algorithm(
        name="srpo",
        sampler=DropSolved(params.part),
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative()),
        refine=(MaskTruncated(),),
        objective=Clipped(),
    )
