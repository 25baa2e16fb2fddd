"""RCS: reward-based curriculum sampling in two stages. arXiv 2504.13592."""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.algorithms.stages.samplers import HardStage
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "a second stage on the samples that are not solved"
PAPER = "arXiv 2504.13592"


class Params(Section):
    group_size: int = Field(8, gt=1)
    first_steps: int = Field(60, gt=0, description="steps of the phase on all samples")
    full: float = Field(2.0, gt=0, description="the most one response can earn")


def build(params: Params) -> Algorithm:
    """Fill the prompt sampler; the rest is GRPO."""
    return Algorithm(
        name="rcs",
        sampler=HardStage(params.first_steps, params.full),
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(),
    )
