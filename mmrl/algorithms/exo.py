"""EXO: the policy's choice among answers is fitted to that of their rewards. arXiv 2402.00856.

Pairs with smoothed labels, or, with a `temperature`, all answers of a group by their rewards.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.pairs import Paired, PairParams, on_pairs
from mmrl.objectives.exact_optimisation import EXO

SUMMARY = "reverse KL of the policy's choice among answers to that of their rewards"
PAPER = "arXiv 2402.00856"


class Params(PairParams):
    smoothing: float = Field(1e-3, gt=0, lt=0.5, description="chance that a pair is the other way")
    temperature: float | None = Field(
        None, gt=0, description="of rewards: choose among the whole group instead of pairs"
    )


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    whole = params.temperature is not None
    return on_pairs(
        "exo",
        params,
        EXO(params.beta, params.smoothing, params.temperature),
        Paired("all" if whole else params.pairs, earned=whole),
    )
