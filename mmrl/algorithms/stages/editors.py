"""Group editors: which groups are kept, and how many more prompts a step needs.

Variants of one sample are judged together: all of its groups stay, or none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from mmrl import plugins
from mmrl.algorithms.stages.credit import families, is_uniform, outcomes, scorable
from mmrl.stage import Context, Edit, EditStage, Stage
from mmrl.types import Floats, Group

Share = Annotated[float, Field(ge=0, le=1)]


def pooled(family: list[Group], part: str | None) -> Floats:
    """Outcomes [n] of all the answers to one sample."""
    return np.concatenate([outcomes(group, part) for group in family])


def has_signal(family: list[Group]) -> bool:
    """True if the rewards of all the answers to one sample differ."""
    return not is_uniform(np.concatenate([group.rewards for group in family]))


@dataclass(frozen=True)
class AccuracyBand(Stage):
    """Keep samples whose accuracy lies in the band; ask for more until the step is full.

    Exclusive (0, 1) is DAPO's dynamic sampling (arXiv 2503.14476, equation 11): neither all right
    nor all wrong. Inclusive and symmetric about 0.5 is balanced online difficulty filtering (arXiv
    2504.03380). Accuracy is the mean of the outcome `part` (see `credit.outcomes`), and never of
    a reward with format points in it. What is over the step's need is cut. `refill` false: drop
    without asking for more.
    """

    low: float = 0.0
    high: float = 1.0
    inclusive: bool = False
    part: str | None = None
    refill: bool = True

    def __call__(self, groups: list[Group], context: Context) -> Edit:
        kept = [family for family in families(groups) if self.keeps(pooled(family, self.part))]
        if not self.refill:
            return Edit([group for family in kept for group in family])
        kept = kept[: context.prompts_per_step]
        missing = context.prompts_per_step - len(kept)
        return Edit([group for family in kept for group in family], missing)

    def keeps(self, rewards: Floats) -> bool:
        """True if the accuracy of the scorable answers, rewards [G], lies in the band."""
        known = rewards[scorable(rewards)]
        if not len(known):
            return False
        accuracy = float(known.mean())
        if self.inclusive:
            return self.low <= accuracy <= self.high
        return self.low < accuracy < self.high

    @property
    def drops_solved(self) -> bool:
        """True if samples that every response got right are dropped."""
        return self.high < 1 or not self.inclusive


@dataclass(frozen=True)
class DropUniform(Stage):
    """Drop samples whose answers all have the same reward. Reinforce-Rej, arXiv 2504.11343.

    A single answer is kept: its deviation counts as 1.
    """

    @property
    def drops_solved(self) -> bool:
        """Samples that every response got right have equal rewards."""
        return True

    def __call__(self, groups: list[Group], context: Context) -> Edit:
        kept = [f for f in families(groups) if sum(len(g.scores) for g in f) == 1 or has_signal(f)]
        return Edit([group for family in kept for group in family])


@dataclass(frozen=True)
class EnoughSignal(Stage):
    """While too few samples carry signal, drop the others and ask for as many new ones.

    GPG, arXiv 2504.02546, section 3.3: `share`, of the step's samples, is its threshold on the
    inverse of alpha.
    """

    share: Share = 0.6

    def __call__(self, groups: list[Group], context: Context) -> Edit:
        signal = [family for family in families(groups) if has_signal(family)]
        # Rounded first: 0.07 x 100 is 7.000000000000001.
        enough = math.ceil(round(self.share * context.prompts_per_step, 9))
        wanted = enough - len(signal)
        if wanted <= 0:
            return Edit(groups)
        return Edit([group for family in signal for group in family], wanted)


EDITORS: Mapping[str, EditStage] = plugins.Named(
    "mmrl.editors",
    {
        "dapo_filter": AccuracyBand(),
        "balanced_filter": AccuracyBand(0.2, 0.8, inclusive=True),
        "drop_uniform": DropUniform(),
        "enough_signal": EnoughSignal(),
    },
)
"""Editors by the name a config uses."""
