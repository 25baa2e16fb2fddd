"""RAFT: likelihood of answers with a positive reward, nothing else.

Minimal-RL, arXiv 2504.11343. Rewards are meant to be +1 and -1; with 0 and 1 it is the same.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, RawReward
from mmrl.objective import KL, Reducer
from mmrl.objectives.likelihood import Likelihood
from mmrl.validation import Section

SUMMARY = "rejection sampling: likelihood of right answers"
PAPER = "arXiv 2504.11343"


class Params(Section):
    group_size: int = Field(4, gt=0)


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer, KL and updates."""
    return Algorithm(
        name="raft",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(RawReward(floor=0.0)),
        objective=Likelihood(),
        reducer=Reducer("token-mean"),
        kl=KL(0.001),
        updates=Updates(mini_batches=4),
    )
