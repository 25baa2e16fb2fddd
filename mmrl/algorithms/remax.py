"""ReMax: REINFORCE with the reward of a greedy answer as baseline. arXiv 2310.10505."""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GreedyBaseline, GroupCredit
from mmrl.objective import KL, Reducer
from mmrl.objectives.likelihood import Likelihood
from mmrl.validation import Section

SUMMARY = "a greedy answer to the same prompt is the baseline"
PAPER = "arXiv 2310.10505"


class Params(Section):
    group_size: int = Field(1, gt=0)


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and KL (k1, in the reward)."""
    return Algorithm(
        name="remax",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GreedyBaseline()),
        objective=Likelihood(),
        reducer=Reducer("seq-mean-token-sum"),
        kl=KL(0.01, "k1", "reward"),
    )
