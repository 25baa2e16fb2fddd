"""CoPG: a contrastive policy gradient towards the optimum of rewards and KL, on any answers.

arXiv 2406.19185. Pairs of a group are compared; an answer's baseline is the other answer's
regularised reward, which is right whoever sampled them.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.objective import Reducer
from mmrl.objectives.reference_regressions import CoPG
from mmrl.validation import Section

SUMMARY = "contrasts regularised rewards of pairs, on- and off-policy"
PAPER = "arXiv 2406.19185"


class Params(Section):
    group_size: int = Field(2, gt=1)
    beta: float = Field(0.1, gt=0, description="weight of the KL that rewards are regularised by")


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    return Algorithm(
        name="copg",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative(None)),
        objective=CoPG(params.beta),
        reducer=Reducer("group-mean"),
    )
