"""EGPO: extragradient steps on the online IPO loss. arXiv 2503.08942.

A step ahead answers its own questions, and the step that counts is made from where that began, on
what the policy ahead answers: two steps of a run are one of the method, so take an even number. In
between, weights and moments are kept a second time. Win rates are of the group's rewards, or of a
pairwise judge: `part` is its name. Without `extragradient` it is online IPO.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import GroupCredit
from mmrl.algorithms.stages.pairs import GroupParams, on_pairs
from mmrl.algorithms.stages.win_rates import WinRates
from mmrl.objectives.nash_pairs import OnlineIPO

SUMMARY = "self-play: online IPO on win rates, by extragradient steps"
PAPER = "arXiv 2503.08942"


class Params(GroupParams):
    beta: float = Field(0.1, gt=0)
    extragradient: bool = Field(True, description="False: online IPO")
    part: str | None = Field(None, description="reward part that is the win rate, as of a judge")


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and updates."""
    credit = GroupCredit(WinRates("rate", params.part))
    updates = Updates(extragradient=params.extragradient)
    return on_pairs("egpo", params, OnlineIPO(params.beta), credit, updates=updates)
