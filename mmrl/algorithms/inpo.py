"""INPO: iterative Nash policy optimisation, IPO against a mixture of reference and old policy.

arXiv 2407.00617. A step is an iteration: the old policy is that of its start. Pairs are by rewards,
which may be a pairwise judge's.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.pairs import GroupParams, Paired, Selection, on_pairs
from mmrl.objectives.nash_pairs import INPO

SUMMARY = "self-play: IPO against reference and last iteration together"
PAPER = "arXiv 2407.00617"


class Params(GroupParams):
    pairs: Selection = Field("best_worst", description="which two responses are a pair")
    eta: float = Field(0.0075, gt=0, description="margins are brought to 1 / (2 eta)")
    tau: float = Field(0.0025, gt=0, description="weight of the reference; at most eta")


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and updates."""
    objective = INPO(params.eta, params.tau)
    credit = Paired(params.pairs)
    return on_pairs("inpo", params, objective, credit, updates=Updates(passes=2))
