"""DR-PO: answers are begun within the record's own completion. arXiv 2404.08495.

Dataset reset policy optimisation: with probability `share` a prompt is given a random prefix of its
target, and the policy goes on from there; only what it writes is trained. Any policy gradient may
follow; here answers of one prefix are compared with each other (a variant: the paper has a critic).
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Resets
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "dataset resets: answers go on from random prefixes of the targets (variant)"
PAPER = "arXiv 2404.08495"


class Params(Section):
    group_size: int = Field(8, gt=1)
    share: float = Field(1.0, ge=0, le=1, description="of prompts that are given a prefix")


def build(params: Params) -> Algorithm:
    """Fill resets; the rest is GRPO."""
    return Algorithm(
        name="dr_po",
        plan=FixedGroup(params.group_size),
        resets=Resets(params.share),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(),
    )
