"""VAPO: value-based training for long chains.

arXiv 2504.05118: a new critic learns alone first, its targets at lambda 1; lambda by length,
token-mean loss, clip-higher, and the likelihood of right answers.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.advantage_estimation import LengthAdaptive, WithCritic
from mmrl.algorithms.stages.credit import FixedGroup
from mmrl.objective import KL, Reducer
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "PPO with critic warm-up, length-adaptive lambda, clip-higher, imitation"
PAPER = "arXiv 2504.05118"


class Params(Section):
    group_size: int = Field(16, gt=0)
    gamma: float = Field(1.0, gt=0, le=1)
    alpha: float = Field(0.05, gt=0, description="lambda = 1 - 1 / (alpha x length)")
    imitation: float = Field(0.1, ge=0)
    critic_steps: int | None = Field(
        None,
        ge=0,
        description="first steps of the phase in which the critic learns alone; default: 50 with "
        "a new critic, at most half of the phase",
    )


def build(params: Params) -> Algorithm:
    """Fill credit, objective, KL (k1, in the rewards of tokens) and updates."""
    return Algorithm(
        name="vapo",
        plan=FixedGroup(params.group_size),
        credit=WithCritic(params.gamma, LengthAdaptive(params.alpha), critic_lam=1.0),
        objective=Clipped(low=0.2, high=0.28, imitation=params.imitation),
        reducer=Reducer("token-mean"),
        kl=KL(0.0, "k1", "token-reward"),
        updates=Updates(mini_batches=4, critic_steps=params.critic_steps, new_critic_steps=50),
    )
