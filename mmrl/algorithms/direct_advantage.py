"""Direct advantage policy optimisation: a step's log-ratio is regressed on its advantage.

DAPO of Liu et al., arXiv 2412.18279 (not the DAPO of arXiv 2503.14476, which is `dapo`). Steps are
the text between separators; a step's advantage is the critic's value after it less that before, and
the last one's the reward less the value before. The critic learns plain returns, alone first, as in
the paper, where it is trained apart from the policy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.advantage_estimation import Constant, WithCritic
from mmrl.algorithms.stages.credit import FixedGroup
from mmrl.objectives.advantage_regression import STEPS, DirectAdvantage
from mmrl.stage import Context, Need, needed
from mmrl.types import Floats, Group, Ints, TrainSample
from mmrl.validation import Section

SUMMARY = "DAPO by direct advantages: steps' log-ratios regressed on a critic's advantages"
PAPER = "arXiv 2412.18279"


class Params(Section):
    group_size: int = Field(8, gt=0)
    beta: float = Field(0.1, gt=0)
    separator: str = Field("\n", min_length=1, description="what ends a step of the text")
    critic_steps: int | None = Field(
        None, ge=0, description="first steps of the phase in which the critic learns alone"
    )


@dataclass(frozen=True)
class BySteps(WithCritic):
    """The advantage of every token's step, and the step's number, on each of its tokens [T]."""

    separator: str = "\n"

    needs: ClassVar[frozenset[Need]] = frozenset({"values", "offsets"})
    spends_penalties: ClassVar[bool] = False
    gives: ClassVar[str] = STEPS

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        made = iter(super().__call__(groups, context))
        return [
            replace(next(made), second=steps.astype(float))
            for group in groups
            for steps in self._steps(group)
        ]

    def estimates(self, group: Group) -> list[Floats]:
        """Advantages [T] of every response's steps, on all of their tokens."""
        values = needed(group.extra.values, "values")
        rewards = np.nan_to_num(group.rewards)
        return [
            step_advantages(own, steps, float(reward))
            for own, steps, reward in zip(values, self._steps(group), rewards, strict=True)
        ]

    def _steps(self, group: Group) -> list[Ints]:
        offsets = needed(group.extra.offsets, "offsets")
        return [
            step_numbers(response.text, places, self.separator)
            for response, places in zip(group.responses, offsets, strict=True)
        ]


def step_numbers(text: str, offsets: Ints, separator: str) -> Ints:
    """The number of each token's step [T], from 0: separators that end before it begins.

    `offsets` [T + 1] are the characters before each token, and in all.
    """
    ends = []
    found = text.find(separator)
    while found >= 0:
        ends.append(found + len(separator))
        found = text.find(separator, ends[-1])
    return np.searchsorted(np.array(ends, dtype=np.int64), offsets[:-1], side="right")


def step_advantages(values: Floats, steps: Ints, reward: float) -> Floats:
    """Value after a step less that before it, on its tokens [T]; the last ends in the reward."""
    if not len(values):
        return np.zeros(0)
    numbers, first = np.unique(steps, return_index=True)
    before = values[first]
    gains = np.append(before[1:], reward) - before
    return np.asarray(gains[np.searchsorted(numbers, steps)])


def build(params: Params) -> Algorithm:
    """Fill credit, objective and updates."""
    return Algorithm(
        name="direct_advantage",
        plan=FixedGroup(params.group_size),
        credit=BySteps(
            1.0, Constant(1.0), critic_lam=1.0, whiten=False, separator=params.separator
        ),
        objective=DirectAdvantage(params.beta),
        updates=Updates(mini_batches=4, critic_steps=params.critic_steps, new_critic_steps=50),
    )
