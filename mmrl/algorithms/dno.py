"""DNO: direct Nash optimisation, the odds of two answers follow those of their win rates.

arXiv 2404.03715. A step is an iteration, as in `sppo`. DNO-Prct, which the paper trains, is DPO on
pairs whose rewards are far apart, against the last iteration: `rs_dpo`, `reference: {every: N}`.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import GroupCredit
from mmrl.algorithms.stages.pairs import GroupParams, on_pairs
from mmrl.algorithms.stages.win_rates import WinRates
from mmrl.objectives.nash_pairs import DNO

SUMMARY = "self-play: cross entropy of pairs' odds and those of their win rates"
PAPER = "arXiv 2404.03715"


class Params(GroupParams):
    eta: float = Field(1.0, gt=0, description="of margins of log-ratios")
    part: str | None = Field(None, description="reward part that is the win rate, as of a judge")


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and updates."""
    credit = GroupCredit(WinRates("rate", params.part))
    return on_pairs("dno", params, DNO(params.eta), credit, updates=Updates(passes=2))
