"""RAFT++: RAFT with the importance ratio and its clip.

Minimal-RL, arXiv 2504.11343.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, RawReward
from mmrl.objective import KL, Reducer
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "rejection sampling with a clipped ratio"
PAPER = "arXiv 2504.11343"


class Params(Section):
    group_size: int = Field(4, gt=0)


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer, KL and updates."""
    return Algorithm(
        name="raft_pp",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(RawReward(floor=0.0)),
        objective=Clipped(),
        reducer=Reducer("token-mean"),
        kl=KL(0.001),
        updates=Updates(mini_batches=4),
    )
