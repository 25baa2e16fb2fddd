"""CGPO: rewards count where constraints are met, as judges of several kinds say.

arXiv 2409.20370, for one task. Constraints are reward parts that must reach `threshold`, such as
those of judges; without any, an answer must be readable and end in time. Optimisers: `crpg`, a
policy gradient of calibrated rewards, sigmoid(reward - what the group's others earn in the mean)
where constraints are met and 0 elsewhere; `codpo`, DPO of the best answer that meets them against
the worst of those that do not (of all, where all do); `crraft`, the likelihood of the best one,
weighed by its calibrated reward. The paper calibrates by a stored answer's reward (a variant).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import (
    FixedGroup,
    GroupCredit,
    GroupRelative,
    RawReward,
    outcomes,
    pair,
    scorable,
)
from mmrl.algorithms.stages.pairs import GroupParams
from mmrl.objective import KL, Reducer
from mmrl.objectives.likelihood import Likelihood
from mmrl.objectives.preference import Preference
from mmrl.stage import Context, Stage, with_rewards
from mmrl.types import Bools, Floats, Group, TrainSample

SUMMARY = "constrained optimisation: rewards count where all constraints are met (variant)"
PAPER = "arXiv 2409.20370"


class Params(GroupParams):
    optimiser: Literal["crpg", "codpo", "crraft"] = "crpg"
    constraints: tuple[str, ...] = Field((), description="reward parts that must be met")
    threshold: float = Field(1.0, description="what such a part must reach")
    beta: float = Field(0.1, gt=0, description="of codpo")


@dataclass(frozen=True)
class Constraints:
    """Which answers of a group [G] meet all constraints."""

    parts: tuple[str, ...] = ()
    threshold: float = 1.0

    def __call__(self, group: Group) -> Bools:
        met = scorable(group.rewards)
        if not self.parts:
            read = np.array([s.status == "ok" for s in group.scores], dtype=bool)
            ended = np.array([not r.truncated for r in group.responses], dtype=bool)
            return np.asarray(met & read & ended, dtype=bool)
        for part in self.parts:
            met = met & (outcomes(group, part) >= self.threshold)
        return np.asarray(met)


@dataclass(frozen=True)
class Calibrated(Stage):
    """sigmoid(reward - mean of the others') where constraints are met, 0 elsewhere.

    With `best` alone the first of the best answers keeps it.
    """

    constraints: Constraints
    best: bool = False

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [with_rewards(g, self.rewards(g.rewards, self.constraints(g))) for g in groups]

    def rewards(self, rewards: Floats, met: Bools) -> Floats:
        """Calibrated rewards [G]; NaN of what could not be scored."""
        known = scorable(rewards)
        count = int(known.sum())
        others = (np.nansum(rewards) - rewards) / max(count - 1, 1) if count > 1 else rewards
        paid = np.where(met, 1 / (1 + np.exp(-(rewards - others))), 0.0)
        if self.best and met.any():
            first = int(np.argmax(np.where(met, rewards, -np.inf)))
            paid = np.where(np.arange(len(paid)) == first, paid, 0.0)
        return np.where(known, paid, np.nan)


@dataclass(frozen=True)
class ConstrainedPair(Stage):
    """Ranks of the best response that meets the constraints and of the worst that does not."""

    constraints: Constraints

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        found = []
        for index, group in enumerate(groups):
            ranks = self.ranks(group.rewards, self.constraints(group))
            for rank, sample in zip(ranks, pair(group, ranks, index), strict=True):
                found.append(replace(sample, mask=sample.mask & (rank != 0)))
        return found

    def ranks(self, rewards: Floats, met: Bools) -> Floats:
        """1 and -1 for the two of a pair [G], 0 for the others, and where there is none."""
        ranks, known = np.zeros(len(rewards)), scorable(rewards)
        worse = known & ~met if (known & ~met).any() else known
        if not met.any():
            return ranks
        best = int(np.argmax(np.where(met, rewards, -np.inf)))
        worst = int(np.argmin(np.where(worse, rewards, np.inf)))
        if met[worst] and rewards[worst] == rewards[best]:
            return ranks
        ranks[worst], ranks[best] = -1.0, 1.0
        return ranks


def build(params: Params) -> Algorithm:
    """Fill what the optimiser is made of."""
    constraints = Constraints(params.constraints, params.threshold)
    plan = FixedGroup(params.group_size)
    if params.optimiser == "codpo":
        return Algorithm(
            name="cgpo",
            plan=plan,
            credit=ConstrainedPair(constraints),
            objective=Preference("dpo", params.beta),
            reducer=Reducer("group-mean"),
        )
    best = params.optimiser == "crraft"
    return Algorithm(
        name="cgpo",
        plan=plan,
        shape=(Calibrated(constraints, best),),
        credit=GroupCredit(RawReward() if best else GroupRelative(None)),
        objective=Likelihood(),
        kl=KL(0.01),
    )
