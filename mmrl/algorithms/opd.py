"""On-policy distillation: every token of the policy's own answers is paid by how much a teacher
likes it more than the policy does, the reverse KL of the token; rewards may be added by weight.

GKD, arXiv 2306.13649, with reverse KL on the student's samples; the gradient is estimated from the
sampled tokens as in MiniLLM, arXiv 2306.08543, without what follows a token (`gamma` 0).
The teacher is the reference: docs/teachers.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import (
    PRESETS,
    FixedGroup,
    Normalise,
    group_relative,
    over_written,
    pair,
    returns_to_go,
)
from mmrl.objective import KL, Reducer
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Stage
from mmrl.types import Bools, Floats, Group, TrainSample
from mmrl.validation import Section

SUMMARY = "per-token reverse KL to a teacher on the policy's own answers"
PAPER = "arXiv 2306.13649"


class Params(Section):
    group_size: int = Field(8, gt=0)
    rewards: float = Field(0.0, ge=0, description="weight of group-relative advantages beside it")
    gamma: float = Field(0.0, ge=0, le=1, description="discount of the KL of later tokens")
    baseline: bool = Field(
        False, description="compare a token with those at its place in the group's other answers"
    )


@dataclass(frozen=True)
class TowardsTeacher(Stage):
    """Minus the KL of a token, and of those after it by `gamma`, plus weighted rewards [T].

    With a `baseline` the mean of the group's other answers at the token's place is taken off: it
    does not depend on the token, so the gradient's mean is the same.
    """

    rewards: float = 0.0
    gamma: float = 0.0
    baseline: bool = False
    normalise: Normalise | None = PRESETS["paper"].normalise

    spends_penalties: ClassVar[bool] = True

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        return [
            sample
            for index, group in enumerate(groups)
            for sample in pair(group, self.advantages(group), index)
        ]

    def advantages(self, group: Group) -> list[Floats]:
        """Advantages [T] of every response."""
        penalties = group.extra.penalties
        if penalties is None:  # kl_coefficient 0: rewards alone
            penalties = [np.zeros(len(response.ids)) for response in group.responses]
        relative = self.rewards * group_relative(group.rewards, self.normalise)
        taught = [
            over_written(response, lambda r: returns_to_go(r, self.gamma), -penalty)
            for response, penalty in zip(group.responses, penalties, strict=True)
        ]
        if self.baseline:
            taught = less_others(taught, [r.written for r in group.responses])
        return [values + reward for values, reward in zip(taught, relative, strict=True)]


def less_others(values: Sequence[Floats], written: Sequence[Bools]) -> list[Floats]:
    """Values [T] without the mean of the other responses' values at the same place, if any.

    Tokens that the model did not write are 0, and in no mean.
    """
    longest = max((len(each) for each in values), default=0)
    total, count = np.zeros(longest), np.zeros(longest)
    for each, own in zip(values, written, strict=True):
        total[: len(each)] += np.where(own, each, 0.0)
        count[: len(each)] += own
    found = []
    for each, own in zip(values, written, strict=True):
        others = count[: len(each)] - own
        mean = (total[: len(each)] - np.where(own, each, 0.0)) / np.maximum(others, 1)
        found.append(np.where(own, each - mean, 0.0))
    return found


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and KL (k1, in the rewards of tokens)."""
    return Algorithm(
        name="opd",
        plan=FixedGroup(params.group_size),
        credit=TowardsTeacher(params.rewards, params.gamma, params.baseline),
        objective=Clipped(),
        reducer=Reducer("token-mean"),
        kl=KL(1.0, "k1", "token-reward"),
    )
