"""RSPO: self-play regression held to a reference by forward and reverse KL. arXiv 2503.00030.

SPPO with both KLs in its loss; they are summed over tokens (a variant: the paper takes whole
answers).
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import GroupCredit
from mmrl.algorithms.stages.pairs import GroupParams, on_pairs
from mmrl.algorithms.stages.win_rates import WinRates
from mmrl.objectives.win_rate_regression import RSPO

SUMMARY = "self-play regression with forward and reverse KL to the reference (variant)"
PAPER = "arXiv 2503.00030"


class Params(GroupParams):
    eta: float = Field(1.0, gt=0, description="log-ratio of a win rate of 1")
    reverse: float = Field(0.1, ge=0, description="weight of KL(policy || reference)")
    forward: float = Field(0.1, ge=0, description="weight of KL(reference || policy)")
    part: str | None = Field(None, description="reward part that is the win rate, as of a judge")


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and updates."""
    credit = GroupCredit(WinRates("centred", params.part))
    objective = RSPO(params.eta, params.reverse, params.forward)
    return on_pairs("rspo", params, objective, credit, updates=Updates(passes=2))
