"""Pairs of a better and a worse response, for preference losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mmrl.algorithms.stages.credit import is_uniform, pair, scorable
from mmrl.stage import Context, Stage
from mmrl.types import Floats, Group, TrainSample

Selection = Literal["best_worst", "best", "all"]
"""Which two responses of a group are a pair; docs/preferences.md."""


@dataclass(frozen=True)
class Paired(Stage):
    """Responses by their rank among the pairs of their group; those in no pair are masked.

    `best_worst`: the best and the worst, the first of equals. `best`: the best against all that
    are worse. `all`: every two of different rewards. Ranks are whole numbers, so that two
    responses of one rank stay equal in every precision and length; a positive one is chosen.
    """

    select: Selection = "best_worst"

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        found = []
        for index, group in enumerate(groups):
            rewards = group.rewards
            alike = is_uniform(rewards)
            ranks = rewards * np.nan if alike else _RANKS[self.select](rewards)
            for i, sample in enumerate(pair(group, np.nan_to_num(ranks), index)):
                found.append(replace(sample, mask=sample.mask & np.isfinite(ranks[i])))
        return found


def best_against_worst(rewards: Floats) -> Floats:
    """Rank 1 for the best and -1 for the worst response [G], NaN for the others."""
    ranks, known = np.full(len(rewards), np.nan), scorable(rewards)
    ranks[int(np.argmin(np.where(known, rewards, np.inf)))] = -1.0
    ranks[int(np.argmax(np.where(known, rewards, -np.inf)))] = 1.0
    return ranks


def best_against_all(rewards: Floats) -> Floats:
    """Rank 1 for the best response [G], -1 for all that are worse, NaN for its equals."""
    ranks, known = np.full(len(rewards), np.nan), scorable(rewards)
    best = int(np.argmax(np.where(known, rewards, -np.inf)))
    ranks[known & (rewards < rewards[best])] = -1.0
    ranks[best] = 1.0
    return ranks


def all_against_all(rewards: Floats) -> Floats:
    """The place of each reward among the different ones of its group [G], around 0, in twos."""
    ranks, known = np.full(len(rewards), np.nan), scorable(rewards)
    levels = np.unique(rewards[known])
    ranks[known] = 2.0 * np.searchsorted(levels, rewards[known]) - (len(levels) - 1)
    return ranks


_RANKS: Mapping[Selection, Callable[[Floats], Floats]] = {
    "best_worst": best_against_worst,
    "best": best_against_all,
    "all": all_against_all,
}
