"""Intuitor: the policy's own certainty is the reward.

arXiv 2505.19590. With a weight for the task's reward, both are normalised in the group, then
added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import (
    PRESETS,
    FixedGroup,
    GroupCredit,
    Normalise,
    Numerics,
    group_relative,
    scorable,
)
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Need, Stage, needed
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "self-certainty as the reward"
PAPER = "arXiv 2505.19590"


class Params(Section):
    group_size: int = Field(7, gt=1)
    task_weight: float = Field(0.0, ge=0, description="weight of the task's own reward")
    numerics: Numerics = "trl"


@dataclass(frozen=True)
class SelfCertain(Stage):
    """Group-relative mean self-certainty [G], plus the weighted one of the task's reward."""

    task_weight: float
    normalise: Normalise

    needs: ClassVar[frozenset[Need]] = frozenset({"self_certainty"})

    def __call__(self, group: Group, context: Context) -> Floats:
        certainties = needed(group.extra.self_certainty, "self_certainty")
        means = [
            float(c[r.written].mean()) if len(c) else 0.0
            for c, r in zip(certainties, group.responses, strict=True)
        ]
        certainty = np.where(scorable(group.rewards), means, np.nan)
        own = group_relative(certainty, self.normalise)
        return own + self.task_weight * group_relative(group.rewards, self.normalise)


def build(params: Params) -> Algorithm:
    """Fill credit and KL."""
    credit = SelfCertain(params.task_weight, PRESETS[params.numerics].normalise)
    return Algorithm(
        name="intuitor",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(credit),
        objective=Clipped(),
        kl=KL(0.005),
    )
