"""MDPO: mirror descent policy optimisation, a KL to the old policy in place of a clip.

arXiv 2005.09814, on-policy. The step size falls from 1 to nearly 0 over the phase, as in the paper;
the KL counts 1 / step size. Several updates of a step go on from its answers. Advantages are those
of the group (the paper has a critic's). mDPO, which compares pictures (arXiv 2406.11839), is
another method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.objective import Reducer
from mmrl.objectives.mirror_descent import KL_WEIGHT, HeldByKL
from mmrl.stage import Context, Stage
from mmrl.types import Group, TrainSample
from mmrl.validation import Section

SUMMARY = "mirror descent: a KL to the old policy in place of a clip"
PAPER = "arXiv 2005.09814"


class Params(Section):
    group_size: int = Field(8, gt=1)
    step_size: float = Field(1.0, gt=0, description="at the first step; falls linearly")
    passes: int = Field(4, gt=0, description="updates of a step, each over its whole batch")


@dataclass(frozen=True)
class WithKLWeight(Stage):
    """Group-relative advantages, and the weight of the step's KL on every token [T]."""

    weight: Callable[[Context], float]

    gives: ClassVar[str] = KL_WEIGHT

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        weight = self.weight(context)
        samples = GroupCredit(GroupRelative())(groups, context)
        return [replace(s, second=np.full(len(s.mask), weight)) for s in samples]


@dataclass(frozen=True)
class FallingStepSize:
    """1 / step size, which falls linearly from `first` to `first` / steps at the last step."""

    first: float = 1.0

    def __call__(self, context: Context) -> float:
        done = (context.step - 1) / max(context.total_steps, 1)
        return 1 / (self.first * (1 - done))


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and updates."""
    return Algorithm(
        name="mdpo",
        plan=FixedGroup(params.group_size),
        credit=WithKLWeight(FallingStepSize(params.step_size)),
        objective=HeldByKL("to_old"),
        reducer=Reducer("token-mean"),
        updates=Updates(passes=params.passes),
    )
