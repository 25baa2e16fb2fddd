"""APA: log-ratios to the reference regressed on a critic's advantages. arXiv 2306.02231."""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.advantage_estimation import Constant, WithCritic
from mmrl.algorithms.stages.credit import FixedGroup
from mmrl.objective import Reducer
from mmrl.objectives.advantage_regression import APA
from mmrl.validation import Section

SUMMARY = "squared difference of log-ratios and a critic's advantages, by token"
PAPER = "arXiv 2306.02231"


class Params(Section):
    group_size: int = Field(1, gt=0)
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1, description="of the advantage estimates")
    temperature: float = Field(0.1, gt=0, description="lambda, which advantages are divided by")


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and updates."""
    return Algorithm(
        name="apa",
        plan=FixedGroup(params.group_size),
        credit=WithCritic(params.gamma, Constant(params.lam), critic_lam=params.lam, whiten=False),
        objective=APA(params.temperature),
        reducer=Reducer("token-mean"),
        updates=Updates(mini_batches=4),
    )
