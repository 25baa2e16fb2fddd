"""PPO: generalised advantage estimates from a critic, clipped ratio.

arXiv 1707.06347; GAE, arXiv 1506.02438. The KL stands in the rewards of tokens.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.advantage_estimation import Constant, WithCritic
from mmrl.algorithms.stages.credit import FixedGroup
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "clipped policy gradient with a critic"
PAPER = "arXiv 1707.06347"


class Params(Section):
    group_size: int = Field(1, gt=0)
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)


def build(params: Params) -> Algorithm:
    """Fill credit, objective, KL (k1, in the rewards of tokens) and updates."""
    return Algorithm(
        name="ppo",
        plan=FixedGroup(params.group_size),
        credit=WithCritic(params.gamma, Constant(params.lam), critic_lam=params.lam),
        objective=Clipped(),
        kl=KL(0.0, "k1", "token-reward"),
        updates=Updates(mini_batches=4),
    )
