"""DVPO: a value model that was learnt first and then stays is all that pays the policy.

arXiv 2502.16944. What a token is worth is the value after it, whitened over the step; no rewards
are read once the critic has learnt. It learns plain returns alone in the first steps and never
again; one of another run is taken with `critic: {path, frozen: true}`, `critic_steps: 0`. The last
token is worth what the value before it is. The paper learns its values from offline data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.advantage_estimation import Constant, WithCritic
from mmrl.algorithms.stages.credit import FixedGroup, over_written
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, needed
from mmrl.types import Floats, Group, TrainSample
from mmrl.validation import Section

SUMMARY = "the values of a critic that stays are the advantages of tokens"
PAPER = "arXiv 2502.16944"
NEW_CRITIC_STEPS = 50


class Params(Section):
    group_size: int = Field(4, gt=0)
    critic_steps: int | None = Field(
        None,
        ge=0,
        description="first steps of the phase, in which the critic learns alone; default: 50 with "
        "a new critic, at most half of the phase",
    )


@dataclass(frozen=True)
class ValuesAfter(WithCritic):
    """The critic's value after every token [T]; it learns in the first `learns` steps only.

    None: in as many as a new critic learns alone.
    """

    learns: int | None = None

    spends_penalties: ClassVar[bool] = False

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        samples = super().__call__(groups, context)
        plan = Updates(critic_steps=self.learns, new_critic_steps=NEW_CRITIC_STEPS)
        if context.step <= plan.critic_alone(context.total_steps, new=True):
            return samples
        return [replace(sample, returns=None, values=None) for sample in samples]

    def estimates(self, group: Group) -> list[Floats]:
        """Values after the tokens [T] of every response."""
        values = needed(group.extra.values, "values")
        return [
            over_written(response, values_after, own)
            for response, own in zip(group.responses, values, strict=True)
        ]


def values_after(values: Floats) -> Floats:
    """The value before the next token [T]; after the last one, the last there is."""
    return np.append(values[1:], values[-1:])


def build(params: Params) -> Algorithm:
    """Fill credit, objective, KL and updates."""
    return Algorithm(
        name="dvpo",
        plan=FixedGroup(params.group_size),
        credit=ValuesAfter(1.0, Constant(1.0), critic_lam=1.0, learns=params.critic_steps),
        objective=Clipped(),
        kl=KL(0.0, "k2"),
        updates=Updates(
            mini_batches=4, critic_steps=params.critic_steps, new_critic_steps=NEW_CRITIC_STEPS
        ),
    )
