"""P3O: pairwise policy gradient on whole answers, clipped one by one. arXiv 2310.00212.

The paper's first version, which clips the two answers of a pair separately. Two responses a prompt
in the paper; with more, every two. The KL stands in the reward.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import GroupCredit, RawReward
from mmrl.algorithms.stages.pairs import GroupParams, on_pairs
from mmrl.objective import KL
from mmrl.objectives.relative_policy_gradient import P3O

SUMMARY = "policy gradient of two answers by the difference of their rewards"
PAPER = "arXiv 2310.00212"


class Params(GroupParams):
    group_size: int = Field(2, gt=1)


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer, KL (k1, in the reward) and updates."""
    return on_pairs(
        "p3o",
        params,
        P3O(),
        GroupCredit(RawReward()),
        kl=KL(0.05, "k1", "reward"),
        updates=Updates(mini_batches=4),
    )
