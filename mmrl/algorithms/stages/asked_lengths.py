"""Rewards for the length that a record asks for, or that its difficulty and the policy allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithms.stages.credit import lengths_of
from mmrl.algorithms.stages.lengths import OfLongest
from mmrl.errors import UserError
from mmrl.stage import Context, Need, Stage, needed, with_rewards
from mmrl.types import Floats, Group

ASKED, DIFFICULTY = "target_length", "difficulty_score"


@dataclass(frozen=True)
class LengthTarget(Stage):
    """Take `alpha` off for every token that an answer is off the length it was asked for.

    INTELLECT-2, arXiv 2505.07291 (after L1). The length stands in the sample's meta as
    `target_length`, where a task puts it that also says it in the prompt (`math`); a sample without
    one raises UserError.
    """

    alpha: Annotated[float, Field(gt=0)] = 3e-4

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [with_rewards(g, g.rewards + self.penalties(g, lengths_of(g))) for g in groups]

    def penalties(self, group: Group, lengths: Floats) -> Floats:
        """What is added to the rewards [G] of answers of these lengths, in tokens."""
        sample = group.prompt.sample
        if ASKED not in sample.meta:
            raise UserError(
                f"sample '{sample.id}' asks for no length: length_target needs the column "
                f"`{ASKED}` and a task that says it in the prompt, such as math"
            )
        return -self.alpha * abs(lengths - float(sample.meta[ASKED]))


@dataclass(frozen=True)
class DoubtBudget(Stage):
    """Multiply rewards by 1 within a budget of tokens, down to 0 at `slope` tokens beyond it.

    PixelThink, arXiv 2505.23727: easy records have a budget of `easy`, those of medium difficulty
    none, and hard ones `hard` and `scale` times the policy's own doubt of that answer, the mean of
    its `indecision`. Difficulties stand in the sample's meta as `difficulty_score`; a sample
    without one raises UserError.
    """

    easy: Annotated[float, Field(ge=0), OfLongest(1_300)] = 96
    hard: Annotated[float, Field(ge=0), OfLongest(1_300)] = 256
    slope: Annotated[float, Field(gt=0), OfLongest(1_300)] = 500
    scale: float = 25.0
    medium_from: float = 3.5
    hard_from: float = 5.0

    needs: ClassVar[frozenset[Need]] = frozenset({"indecision"})

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [with_rewards(g, g.rewards * self.factors(g, lengths_of(g))) for g in groups]

    def factors(self, group: Group, lengths: Floats) -> Floats:
        """Factors [G] of the rewards of answers of these lengths, in tokens."""
        beyond = np.maximum(lengths - self.budgets(group), 0.0)
        return np.asarray(np.maximum(1.0 - beyond / self.slope, 0.0))

    def budgets(self, group: Group) -> Floats:
        """Tokens [G] that each answer may take."""
        sample = group.prompt.sample
        if DIFFICULTY not in sample.meta:
            raise UserError(
                f"sample '{sample.id}' has no difficulty: doubt_budget needs the column "
                f"`{DIFFICULTY}` and a task that keeps it, such as reasoning_segmentation"
            )
        difficulty = float(sample.meta[DIFFICULTY])
        doubts = np.array([np.mean(d) if len(d) else 0.0 for d in self._doubts(group)])
        if difficulty >= self.hard_from:
            return self.hard + self.scale * doubts
        return np.full_like(doubts, np.inf if difficulty >= self.medium_from else self.easy)

    def _doubts(self, group: Group) -> Sequence[Floats]:
        return needed(group.extra.indecision, "indecision")
