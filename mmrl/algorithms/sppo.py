"""SPPO: self-play by regression of log-ratios on win rates. arXiv 2405.00675.

A step is an iteration: its answers play against each other, and their log-ratios are to the policy
of its start. Win rates are of the group's rewards, or of a pairwise judge: `part` is its name.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import GroupCredit
from mmrl.algorithms.stages.pairs import GroupParams, on_pairs
from mmrl.algorithms.stages.win_rates import WinRates
from mmrl.objectives.win_rate_regression import SPPO

SUMMARY = "self-play: log-ratios regressed on win rates within the group"
PAPER = "arXiv 2405.00675"


class Params(GroupParams):
    eta: float = Field(1.0, gt=0, description="log-ratio of a win rate of 1")
    part: str | None = Field(None, description="reward part that is the win rate, as of a judge")


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and updates."""
    return on_pairs(
        "sppo",
        params,
        SPPO(params.eta),
        GroupCredit(WinRates("centred", params.part)),
        updates=Updates(passes=2),
    )
