"""SARI: an easy-to-hard curriculum by the base model's pass rate (a variant).

arXiv 2504.15900. Meant to follow a supervised phase.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.algorithms.stages.samplers import EasyToHard
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "asks easy samples first (variant)"
PAPER = "arXiv 2504.15900"


class Params(Section):
    group_size: int = Field(8, gt=1)


def build(params: Params) -> Algorithm:
    """Fill the prompt sampler; the rest is GRPO."""
    return Algorithm(
        name="sari",
        sampler=EasyToHard(),
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(),
    )
