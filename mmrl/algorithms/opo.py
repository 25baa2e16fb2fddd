"""OPO: exact on-policy learning with the length-weighted mean reward as baseline.

arXiv 2505.23585. No clip, no KL, one update for each batch.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, LengthWeighted
from mmrl.objective import Reducer
from mmrl.objectives.likelihood import Likelihood
from mmrl.validation import Section

SUMMARY = "exactly on-policy, length-weighted baseline"
PAPER = "arXiv 2505.23585"


class Params(Section):
    group_size: int = Field(8, gt=1)


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer; several updates on a batch are refused."""
    return Algorithm(
        name="opo",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(LengthWeighted()),
        objective=Likelihood(),
        reducer=Reducer("seq-mean-token-sum"),
        always_on_policy=True,
    )
