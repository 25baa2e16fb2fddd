"""RPO, the regularised one: DPO and the likelihood of chosen answers. arXiv 2405.16436.

With `average` and a `likelihood` of 1 it is the loss of iterative reasoning preference
optimisation, arXiv 2404.19733. RPO is also the name of reward-aware preference optimisation:
`rpo_reward_aware`.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.pairs import PairParams, on_pairs
from mmrl.objectives.with_likelihood import RegularisedPreference

SUMMARY = "regularised preference optimisation: DPO plus the likelihood of chosen answers"
PAPER = "arXiv 2405.16436"


class Params(PairParams):
    likelihood: float = Field(0.005, ge=0, description="weight of the chosen answers' likelihood")
    average: bool = Field(False, description="likelihood of a token instead of the answer's")


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    objective = RegularisedPreference(params.beta, params.likelihood, params.average)
    return on_pairs("rpo_regularised", params, objective)
