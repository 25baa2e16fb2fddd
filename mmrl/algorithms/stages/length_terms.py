"""Reward terms of length, in tokens that the model wrote: they compare the answers of a group.

What a group's mean or longest enters cannot be computed for one record, hence not by a task. Right
is an outcome above 0 (`part`, or what the task calls right). Unscorable answers are left out of
every comparison. A term never enters the task's own metric.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from mmrl.algorithms.stages.credit import lengths_of, outcomes, scorable
from mmrl.algorithms.stages.lengths import OfLongest
from mmrl.stage import Context, Shape, Stage, with_rewards
from mmrl.types import Bools, Floats, Group

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class LengthTerm(Stage, ABC):
    """Adds a term of length, times `weight`, to the rewards of a group."""

    weight: float = 1.0
    part: str | None = None

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [with_rewards(group, self._shaped(group)) for group in groups]

    def _shaped(self, group: Group) -> Floats:
        rewards, known = group.rewards, scorable(group.rewards)
        right = outcomes(group, self.part)[known] > 0
        rewards[known] = self.combined(rewards[known], self.terms(lengths_of(group)[known], right))
        return rewards

    def combined(self, rewards: Floats, terms: Floats) -> Floats:
        """Return rewards [G] with their terms [G]."""
        return rewards + self.weight * terms

    @abstractmethod
    def terms(self, lengths: Floats, right: Bools) -> Floats:
        """Return the term [G] of answers of these lengths [G], of which some are right [G]."""


@dataclass(frozen=True, kw_only=True)
class CosineLength(LengthTerm):
    """Half a cosine from the first value at length 0 to the second at `longest` (VLM-R1).

    `right` and `wrong` are the two values of right and of wrong answers. `clamp` False is VLM-R1 as
    coded: beyond `longest` the term rises again.
    """

    longest: Annotated[Positive, OfLongest(1_024)] = 1_024
    right: tuple[float, float] = (1.0, 0.5)
    wrong: tuple[float, float] = (-0.5, 0.0)
    clamp: bool = True

    def terms(self, lengths: Floats, right: Bools) -> Floats:
        share = lengths / self.longest
        falling = (1 + np.cos(np.pi * (np.minimum(share, 1.0) if self.clamp else share))) / 2
        start, end = (np.where(right, *pair) for pair in zip(self.right, self.wrong, strict=True))
        return np.asarray(end + (start - end) * falling, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class RelativeLength(LengthTerm):
    """0.5 for the shortest of the group, -0.5 for the longest, wrong answers at most 0.

    Reason-RFT's (and Kimi's) length term; all of one length gives 0 everywhere.
    """

    def terms(self, lengths: Floats, right: Bools) -> Floats:
        spread = lengths.max(initial=0.0) - lengths.min(initial=np.inf)
        if not spread > 0:
            return np.zeros_like(lengths)
        term = 0.5 - (lengths - lengths.min()) / spread
        return np.asarray(np.where(right, term, np.minimum(term, 0.0)), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class DifficultyLength(LengthTerm):
    """Difficulty-adaptive length term of UI-R1-E (DAST, arXiv 2503.04472).

    The budget lies between the mean right length and `longest`, by the share of right answers. The
    shorter a right answer the better (at least 0.1), the longer a wrong one (at most -0.1).
    """

    longest: Annotated[Positive, OfLongest(1_024)] = 1_024

    def terms(self, lengths: Floats, right: Bools) -> Floats:
        share = float(np.mean(right)) if len(right) else 0.0
        mean_right = float(np.mean(lengths[right])) if share else 0.0
        budget = max(share * mean_right + (1.0 - share) * self.longest, 1.0)
        excess = (lengths - budget) / budget
        return np.where(
            right, np.maximum(-0.5 * excess + 0.5, 0.1), np.minimum(0.9 * excess - 0.1, -0.1)
        )


@dataclass(frozen=True, kw_only=True)
class LengthWindow(LengthTerm):
    """A bonus for right answers of a length in [low, high] if more than one is right (Video-R1)."""

    low: Annotated[NonNegative, OfLongest(768)] = 320
    high: Annotated[Positive, OfLongest(768)] = 512
    weight: float = 0.2

    def terms(self, lengths: Floats, right: Bools) -> Floats:
        within = right & (self.low <= lengths) & (lengths <= self.high)
        return np.where(within & (np.sum(right) > 1), 1.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class LongIsBetter(LengthTerm):
    """min(1, length / enough): ToolRL's optional term, which invites padding."""

    enough: Annotated[Positive, OfLongest(1_024)] = 512

    def terms(self, lengths: Floats, right: Bools) -> Floats:
        return np.minimum(lengths / self.enough, 1.0)


@dataclass(frozen=True, kw_only=True)
class LengthBudget(LengthTerm):
    """Multiplies rewards: by 1 within the budget, by 0 from `slope` tokens beyond (PixelThink).

    With a `weight` below 1 that share of the reward is left. PixelThink has a budget of its own for
    every record; this one holds for all of them.
    """

    budget: Annotated[NonNegative, OfLongest(1_024)] = 512
    slope: Annotated[Positive, OfLongest(1_024)] = 500

    def combined(self, rewards: Floats, terms: Floats) -> Floats:
        return rewards * (1 - self.weight + self.weight * terms)

    def terms(self, lengths: Floats, right: Bools) -> Floats:
        return np.clip(1.0 - (lengths - self.budget) / self.slope, 0.0, 1.0)


LENGTH_TERMS: Mapping[str, Shape] = {
    "cosine_length": CosineLength(),
    "relative_length": RelativeLength(),
    "difficulty_length": DifficultyLength(),
    "length_window": LengthWindow(),
    "long_is_better": LongIsBetter(),
    "length_budget": LengthBudget(),
}
"""Terms of length by the name a config uses."""
