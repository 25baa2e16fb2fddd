"""GSPO-token: the response's ratio as value, every token's own gradient and advantage.

arXiv 2507.18071, section 4.3.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "the ratio of the response, with advantages that may differ by token"
PAPER = "arXiv 2507.18071"


class Params(Section):
    group_size: int = Field(8, gt=0)


def build(params: Params) -> Algorithm:
    """Fill credit, objective and updates; with a single update the ratio is 1 and nothing clips."""
    return Algorithm(
        name="gspo_token",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(low=3e-4, high=4e-4, ratio="sequence-token"),
        updates=Updates(mini_batches=4),
    )
