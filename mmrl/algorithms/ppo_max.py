"""PPO-max: PPO with what was found to keep it stable. arXiv 2307.04964.

Rewards are normalised by those of the run so far and clipped, the KL stands in the rewards of
tokens, a new critic learns alone first, and its values are clipped (`critic.clip`). How far rewards
are clipped, and for how long the critic learns alone, are this project's (a variant).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.advantage_estimation import Constant, WithCritic
from mmrl.algorithms.stages.credit import FixedGroup, scorable
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Stage, with_rewards
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "PPO with normalised, clipped rewards, token KL and critic warm-up (variant)"
PAPER = "arXiv 2307.04964"


class Params(Section):
    group_size: int = Field(1, gt=0)
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    reward_clip: float = Field(3.0, gt=0, description="of normalised rewards, in deviations")
    critic_steps: int | None = Field(
        None, ge=0, description="first steps in which the critic learns alone; default: 50 of a new"
    )


@dataclass(frozen=True)
class NormalisedRewards(Stage):
    """Rewards less the run's mean over its standard deviation, within `clip`.

    The state holds count, mean and sum of squared differences of all rewards so far, this step's
    included. While all are the same they become 0.
    """

    clip: float = 3.0

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        rewards = [group.rewards for group in groups]
        new = np.concatenate([np.zeros(0), *(r[scorable(r)] for r in rewards)])
        seen = context.state["rewards_seen"] = merged(context.state.get("rewards_seen"), new)
        deviation = (seen["squares"] / max(seen["count"], 1)) ** 0.5
        return [
            with_rewards(g, np.clip((r - seen["mean"]) / (deviation or 1.0), -self.clip, self.clip))
            for g, r in zip(groups, rewards, strict=True)
        ]


def merged(before: dict[str, Any] | None, new: Floats) -> dict[str, Any]:
    """Count, mean and sum of squared differences with more values [n] (Chan et al., 1979)."""
    old = before or {"count": 0, "mean": 0.0, "squares": 0.0}
    if not len(new):
        return old
    count, apart = old["count"] + len(new), float(new.mean()) - old["mean"]
    return {
        "count": count,
        "mean": old["mean"] + apart * len(new) / count,
        "squares": old["squares"]
        + float(((new - new.mean()) ** 2).sum())
        + apart**2 * old["count"] * len(new) / count,
    }


def build(params: Params) -> Algorithm:
    """Fill shape, credit, objective, KL (k1, in the rewards of tokens) and updates."""
    return Algorithm(
        name="ppo_max",
        plan=FixedGroup(params.group_size),
        shape=(NormalisedRewards(params.reward_clip),),
        credit=WithCritic(params.gamma, Constant(params.lam), critic_lam=params.lam),
        objective=Clipped(),
        kl=KL(0.05, "k1", "token-reward"),
        updates=Updates(mini_batches=4, critic_steps=params.critic_steps, new_critic_steps=50),
    )
