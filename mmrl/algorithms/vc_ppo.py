"""VC-PPO: a new critic is trained first, on a policy that stays, and learns plain returns.

arXiv 2503.01491. `critic_lam` is the lambda of the critic's targets, 1 for plain returns; that of
the advantages is `lam`. The paper trains the critic until its loss and explained variance settle;
the number of steps is this project's.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.advantage_estimation import Constant, WithCritic
from mmrl.algorithms.stages.credit import FixedGroup
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "PPO with a pre-trained critic and separate lambdas"
PAPER = "arXiv 2503.01491"


class Params(Section):
    group_size: int = Field(1, gt=0)
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    critic_lam: float = Field(1.0, ge=0, le=1)
    critic_steps: int | None = Field(
        None,
        ge=0,
        description="first steps of the phase in which the critic learns alone; default: 100 with "
        "a new critic, at most half of the phase",
    )


def build(params: Params) -> Algorithm:
    """Fill credit, objective, KL (k1, in the rewards of tokens) and updates."""
    return Algorithm(
        name="vc_ppo",
        plan=FixedGroup(params.group_size),
        credit=WithCritic(params.gamma, Constant(params.lam), params.critic_lam),
        objective=Clipped(),
        kl=KL(0.0, "k1", "token-reward"),
        updates=Updates(mini_batches=4, critic_steps=params.critic_steps, new_critic_steps=100),
    )
