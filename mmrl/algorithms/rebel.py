"""REBEL: regression of log-ratio differences on reward differences.

arXiv 2404.16767. Two responses a prompt in the paper; with more, all pairs. The KL stands in the
reward.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, RawReward
from mmrl.objective import KL, Reducer
from mmrl.objectives.pair_regression import REBEL
from mmrl.validation import Section

SUMMARY = "regresses differences of log-ratios on differences of rewards"
PAPER = "arXiv 2404.16767"


class Params(Section):
    group_size: int = Field(2, gt=1)
    eta: float = Field(1.0, gt=0)


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer, KL (k1, in the reward) and updates."""
    return Algorithm(
        name="rebel",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(RawReward()),
        objective=REBEL(params.eta),
        reducer=Reducer("group-mean"),
        kl=KL(0.05, "k1", "reward"),
        updates=Updates(passes=4),
    )
