"""GPO: self-play by regression of log-ratios on preference scores. arXiv 2410.02197.

The score of an answer is the log of its odds to win, as a general preference model's: one that is
not transitive is a pairwise judge (`part` is its name), which says the mean of its comparisons, so
the log is of mean odds (a variant).
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import GroupCredit
from mmrl.algorithms.stages.pairs import GroupParams, on_pairs
from mmrl.algorithms.stages.win_rates import WinRates
from mmrl.objectives.win_rate_regression import SPPO

SUMMARY = "general preference optimisation: regression on the log-odds of winning (variant)"
PAPER = "arXiv 2410.02197"


class Params(GroupParams):
    beta: float = Field(1.0, gt=0, description="scores are divided by it")
    part: str | None = Field(None, description="reward part that is the win rate, as of a judge")


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and updates."""
    credit = GroupCredit(WinRates("log_odds", params.part))
    return on_pairs("gpo", params, SPPO(1 / params.beta), credit, updates=Updates(passes=2))
