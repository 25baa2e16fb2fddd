"""RTO: PPO paid token by token by a policy that DPO has trained. arXiv 2404.18922.

A token earns beta 1 log(DPO's policy / start) - beta 2 log(policy / start), the last one the reward
too. That is minus beta 2 log(policy / m) with log m the mean of DPO's policy and of the start by
weights beta 1 / beta 2 and 1 - beta 1 / beta 2: `reference.teachers` with these weights (which may
be negative) is m, `kl_coefficient` is beta 2. With beta 1 = beta 2 it is DPO's policy alone,
`reference.path`. Without either, the tokens are paid by the start: PPO with a KL.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.advantage_estimation import Constant, WithCritic
from mmrl.algorithms.stages.credit import FixedGroup
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "PPO with token rewards of a policy that DPO has trained"
PAPER = "arXiv 2404.18922"


class Params(Section):
    group_size: int = Field(1, gt=0)
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)


def build(params: Params) -> Algorithm:
    """Fill credit, objective, KL (k1, in the rewards of tokens) and updates."""
    return Algorithm(
        name="rto",
        plan=FixedGroup(params.group_size),
        credit=WithCritic(params.gamma, Constant(params.lam), critic_lam=params.lam),
        objective=Clipped(),
        kl=KL(0.05, "k1", "token-reward"),
        updates=Updates(mini_batches=4),
    )
