"""Reward shapers: group-level changes of the rewards, before advantages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from mmrl import plugins
from mmrl.algorithms.stages.asked_lengths import DoubtBudget, LengthTarget
from mmrl.algorithms.stages.credit import lengths_of, outcomes, scorable
from mmrl.algorithms.stages.length_terms import LENGTH_TERMS
from mmrl.algorithms.stages.lengths import OfLongest
from mmrl.algorithms.stages.text_terms import TEXT_TERMS
from mmrl.stage import Context, Shape, Stage, with_rewards
from mmrl.types import Bools, Floats, Group

Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class SoftOverlong(Stage):
    """Punish length: 0 up to the cache, then linearly down to -1 at `longest` tokens.

    DAPO, arXiv 2503.14476, equation 13. `floor` None is verl, which goes on falling.
    """

    longest: Annotated[Positive, OfLongest(20_480)] = 20_480
    cache: Annotated[Positive, OfLongest(20_480, "longest")] = 4_096
    floor: float | None = -1.0

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [with_rewards(g, g.rewards + self.punishment(lengths_of(g))) for g in groups]

    def words(self) -> str:
        """Say which answers lose how much."""
        free = self.longest - self.cache
        return f"answers over {free:g} tokens lose reward, up to 1 point at {self.longest:g} tokens"

    def punishment(self, lengths: Floats) -> Floats:
        """Return what is added to the rewards [G] of answers of these lengths."""
        value = np.minimum((self.longest - self.cache - lengths) / self.cache, 0.0)
        return np.asarray(np.maximum(value, -np.inf if self.floor is None else self.floor))


@dataclass(frozen=True)
class RightAndWellFormed(Stage):
    """Pay 1 only where format and answer are both right, 0 otherwise.

    The hard-formatting result reward of Vision-R1, arXiv 2503.06749. A truncated answer is not
    well formed. Without a name, the format is the part `format` where the task has it, else that
    an answer could be read.
    """

    answer: str = "accuracy"
    format: str | None = None
    threshold: float = 1.0

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [with_rewards(group, self._rewards(group)) for group in groups]

    def _rewards(self, group: Group) -> Floats:
        complete = np.array([not r.truncated for r in group.responses])
        right = outcomes(group, self.answer) >= self.threshold
        return np.where(right & self._formed(group) & complete, 1.0, 0.0)

    def _formed(self, group: Group) -> Bools:
        scored = [score for score in group.scores if score.reward is not None]
        if self.format is None and not all("format" in score.parts for score in scored):
            return np.array([score.status == "ok" for score in group.scores])
        return np.asarray(outcomes(group, self.format or "format") >= self.threshold)


@dataclass(frozen=True)
class ShortIsBetter(Stage):
    """Pay right answers by length within their group, and give wrong ones -1.

    GRPO-LEAD, arXiv 2504.09696: exp(-alpha z), z the standardised length among right answers.
    Without length term where the mean of the three shortest right answers is at most `free`
    tokens (as the released code does from 4000; 0: always with it).
    """

    alpha: float = 0.05
    free: float = 0.0
    epsilon: float = 1e-6
    part: str | None = None

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [
            with_rewards(g, self.rewards(outcomes(g, self.part) > 0, lengths_of(g))) for g in groups
        ]

    def rewards(self, right: Bools, lengths: Floats) -> Floats:
        """Rewards [G] of right and wrong answers of these lengths."""
        among = lengths[right]
        if not len(among) or np.sort(among)[:3].mean() <= self.free:
            return np.where(right, 1.0, -1.0)
        spread = among.std(ddof=1) if len(among) > 1 else 1.0
        scores = (lengths - among.mean()) / (spread + self.epsilon)
        return np.where(right, np.exp(-self.alpha * scores), -1.0)


@dataclass(frozen=True)
class ShortWhenSolved(Stage):
    """Where every answer of a group is right, add what is left of the length budget.

    L-GRPO of ConciseR, arXiv 2505.21178 (a variant: its reward is not published).
    """

    bonus: float = 0.5
    longest: Annotated[Positive, OfLongest(4_096)] = 4_096
    part: str | None = None

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [self._shaped(group) for group in groups]

    def _shaped(self, group: Group) -> Group:
        right = outcomes(group, self.part)
        if not (right[scorable(right)] >= 1).all():
            return group
        return with_rewards(group, group.rewards + self.bonuses(lengths_of(group)))

    def bonuses(self, lengths: Floats) -> Floats:
        """Return what is added to the rewards [G] of answers of these lengths."""
        return self.bonus * (1 - lengths / self.longest)


SHAPERS: Mapping[str, Shape] = plugins.Named(
    "mmrl.shapers",
    {
        "soft_overlong": SoftOverlong(),
        "right_and_well_formed": RightAndWellFormed(),
        "short_is_better": ShortIsBetter(),
        "short_when_solved": ShortWhenSolved(),
        "length_target": LengthTarget(),
        "doubt_budget": DoubtBudget(),
        **LENGTH_TERMS,
        **TEXT_TERMS,
    },
)
"""Shapers by the name a config uses."""
