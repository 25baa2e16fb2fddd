"""DUMP: a bandit over data sources, by the size of their advantages. arXiv 2504.09710."""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.algorithms.stages.samplers import UpperConfidence
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "learns which data source teaches most"
PAPER = "arXiv 2504.09710"


class Params(Section):
    group_size: int = Field(8, gt=1)
    window: int = Field(300, gt=0)
    temperature: float = Field(0.1, gt=0)


def build(params: Params) -> Algorithm:
    """Fill the prompt sampler; the rest is GRPO."""
    return Algorithm(
        name="dump",
        sampler=UpperConfidence(params.window, params.temperature),
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(),
    )
