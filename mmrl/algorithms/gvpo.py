"""GVPO: regression of a group's centred log-ratios on its centred rewards.

arXiv 2504.19599. The weights of a group's log-probs sum to zero, so the partition function drops
out, and any sampling distribution is allowed.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.objective import Reducer
from mmrl.objectives.group_regression import GVPO
from mmrl.validation import Section

SUMMARY = "regresses group log-ratios on rewards; whole groups in one batch"
PAPER = "arXiv 2504.19599"


class Params(Section):
    group_size: int = Field(4, gt=1)
    beta: float = Field(0.1, gt=0)


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    return Algorithm(
        name="gvpo",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative(None)),
        objective=GVPO(params.beta),
        reducer=Reducer("group-mean"),
    )
