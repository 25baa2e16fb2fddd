"""GRPO-LEAD: short right answers, penalised wrong ones, more weight for hard questions.

arXiv 2504.09696. Advantages are weighed by a logistic function of the group's accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import (
    PRESETS,
    FixedGroup,
    GroupCredit,
    Normalise,
    group_relative,
    outcomes,
    scorable,
)
from mmrl.algorithms.stages.lengths import OfLongest
from mmrl.algorithms.stages.shapers import ShortIsBetter
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Stage
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "length-aware rewards, advantages weighed by difficulty"
PAPER = "arXiv 2504.09696"


class Params(Section):
    group_size: int = Field(8, gt=1)
    alpha: float = Field(0.05, ge=0, description="weight of the standardised length")
    free_length: Annotated[float, OfLongest(8192)] = Field(
        4000, ge=0, description="no length term below; 0: always with it"
    )
    lowest: float = 0.4
    highest: float = 1.5
    middle: float = 0.75
    steepness: float = 10.0
    part: str | None = Field(None, description="reward part that says right or wrong")


@dataclass(frozen=True)
class WeighedByDifficulty(Stage):
    """Group-relative advantages [G] times w(accuracy) if positive, else times w(1 - accuracy)."""

    lowest: float = 0.4
    highest: float = 1.5
    middle: float = 0.75
    steepness: float = 10.0
    part: str | None = None
    normalise: Normalise = PRESETS["paper"].normalise

    def __call__(self, group: Group, context: Context) -> Floats:
        right = outcomes(group, self.part)
        known = right[scorable(right)]
        accuracy = float((known > 0).mean()) if len(known) else 0.0
        return self.weighed(group_relative(group.rewards, self.normalise), accuracy)

    def weighed(self, advantages: Floats, accuracy: float) -> Floats:
        """Weigh the advantages [G] of a group of this accuracy."""
        up, down = self.weight(accuracy), self.weight(1 - accuracy)
        return np.where(advantages > 0, up, down) * advantages

    def weight(self, accuracy: float) -> float:
        """Logistic from `highest` (hard) down to `lowest` (easy)."""
        rise = 1 + np.exp(self.steepness * (accuracy - self.middle))
        return float(self.lowest + (self.highest - self.lowest) / rise)


def build(params: Params) -> Algorithm:
    """Fill shaping and credit."""
    weigh = WeighedByDifficulty(
        params.lowest, params.highest, params.middle, params.steepness, params.part
    )
    return Algorithm(
        name="grpo_lead",
        plan=FixedGroup(params.group_size),
        shape=(ShortIsBetter(params.alpha, params.free_length, part=params.part),),
        credit=GroupCredit(weigh),
        objective=Clipped(),
    )
