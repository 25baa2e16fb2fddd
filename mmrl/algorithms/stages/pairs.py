"""Pairs of a better and a worse response, for preference losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, is_uniform, pair, scorable
from mmrl.objective import Objective, Reducer
from mmrl.stage import Context, Credit, Stage
from mmrl.types import Floats, Group, TrainSample
from mmrl.validation import Section

Selection = Literal["best_worst", "best", "all"]
"""Which two responses of a group are a pair; docs/preferences.md."""


@dataclass(frozen=True)
class Paired(Stage):
    """Responses by their rank among the pairs of their group; those in no pair are masked.

    `best_worst`: the best and the worst, the first of equals. `best`: the best against all that
    are worse. `all`: every two of different rewards. Ranks are whole numbers, so that two
    responses of one rank stay equal in every precision and length; a positive one is chosen. With
    `earned` the rewards of what is in a pair take the place of ranks.
    """

    select: Selection = "best_worst"
    earned: bool = False

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        return [
            sample
            for index, group in enumerate(groups)
            for sample in self.samples(group, index, self.ranks(group.rewards))
        ]

    def ranks(self, rewards: Floats) -> Floats:
        """Ranks of responses [G] by their rewards, NaN of those in no pair."""
        return rewards * np.nan if is_uniform(rewards) else _RANKS[self.select](rewards)

    def samples(self, group: Group, index: int, ranks: Floats) -> list[TrainSample]:
        """Train samples of a group with these ranks [G], and with what else is to be read."""
        labels = np.where(np.isfinite(ranks), group.rewards, 0.0) if self.earned else ranks
        made = [
            replace(sample, mask=sample.mask & np.isfinite(rank))
            for sample, rank in zip(pair(group, np.nan_to_num(labels), index), ranks, strict=True)
        ]
        seconds = self.second(group, ranks)
        if seconds is None:
            return made
        return [replace(sample, second=each) for sample, each in zip(made, seconds, strict=True)]

    def second(self, group: Group, ranks: Floats) -> Sequence[Floats] | None:
        """What the objective reads besides ranks [G] of every token [T]; None: nothing."""
        return None


def on_tokens(group: Group, values: Sequence[float] | Floats) -> list[Floats]:
    """Repeat one value a response [G] on all of its tokens [T]."""
    return [
        np.full(len(response.ids), float(value))
        for response, value in zip(group.responses, values, strict=True)
    ]


class GroupParams(Section):
    """What every algorithm may be told that compares the answers of a group."""

    group_size: int = Field(8, gt=1)


class PairParams(GroupParams):
    """The same, and which of them are pairs."""

    pairs: Selection = Field("best_worst", description="which two responses are a pair")
    beta: float = Field(0.1, gt=0)


def on_pairs(
    name: str, params: GroupParams, objective: Objective, credit: Credit | None = None, **more: Any
) -> Algorithm:
    """An algorithm of a pair loss, with its credit (default: ranks), and other stages besides."""
    select = params.pairs if isinstance(params, PairParams) else "best_worst"
    return Algorithm(
        name=name,
        plan=FixedGroup(params.group_size),
        credit=credit or Paired(select),
        objective=objective,
        reducer=Reducer(objective.reducer or "group-mean"),
        **more,
    )


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
