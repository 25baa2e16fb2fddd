"""GiGPO: advantages of episodes, plus advantages of steps that start from the same state.

arXiv 2505.10978. The released code averages episode scores over step rows, so long episodes weigh
more (`numerics: code`). A state seen once has no step advantage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import (
    PRESETS,
    FixedGroup,
    Normalise,
    group_relative,
    pair,
    returns_to_go,
)
from mmrl.algorithms.stages.turns import by_turn, turns
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Need, Stage
from mmrl.types import Floats, Group, TokenSpan, TrainSample
from mmrl.validation import Section

SUMMARY = "episode advantages plus advantages of steps from the same state"
PAPER = "arXiv 2505.10978"


class Params(Section):
    group_size: int = Field(8, gt=1)
    gamma: float = Field(0.95, gt=0, le=1)
    step_weight: float = Field(1.0, ge=0)
    scale: bool = Field(False, description="divide both advantages by their standard deviation")
    numerics: Literal["paper", "code"] = "paper"


@dataclass(frozen=True)
class EpisodesAndSteps(Stage):
    """A^E + weight x A^S on the tokens of every step; tokens outside of steps are masked."""

    gamma: float
    weight: float
    normalise: Normalise | None
    over_steps: bool

    needs: ClassVar[frozenset[Need]] = frozenset({"turns", "states"})

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        return [s for i, group in enumerate(groups) for s in self._samples(group, i)]

    def _samples(self, group: Group, index: int) -> list[TrainSample]:
        spans = turns(group)
        values = self.step_advantages(group.rewards, spans)
        samples = pair(group, np.zeros(len(spans)), index)
        return [
            replace(sample, advantages=by_turn(sample.response, row, value))
            for sample, row, value in zip(samples, spans, values, strict=True)
        ]

    def step_advantages(
        self, rewards: Floats, spans: Sequence[Sequence[TokenSpan]]
    ) -> list[Floats]:
        """Advantage of every step of every episode: [steps] for each of the rewards [G]."""
        episodes = self.episode_advantages(rewards, [len(row) for row in spans])
        returns = [discounted(row, self.gamma) for row in spans]
        states = [span.state for row in spans for span in row]
        steps = self.anchored(np.concatenate([*returns, np.zeros(0)]), states)
        ends = np.cumsum([len(row) for row in spans])[:-1]
        return [
            episode + self.weight * own
            for episode, own in zip(episodes, np.split(steps, ends), strict=True)
        ]

    def episode_advantages(self, rewards: Floats, lengths: Sequence[int]) -> Floats:
        """Advantage of every episode [G]; `over_steps` counts it once per step."""
        if not self.over_steps:
            return group_relative(rewards, self.normalise)
        rows = group_relative(np.repeat(rewards, lengths), self.normalise)
        firsts = np.cumsum(lengths) - np.asarray(lengths)
        return np.array([rows[i] if n else 0.0 for i, n in zip(firsts, lengths, strict=True)])

    def anchored(self, returns: Floats, states: Sequence[str]) -> Floats:
        """Advantage of every step against the steps from the same state: returns [n] -> [n]."""
        advantages = np.zeros(len(returns))
        for state in set(states):
            rows = [i for i, s in enumerate(states) if s == state]
            advantages[rows] = group_relative(returns[rows], self.normalise)
        return advantages


def discounted(spans: Sequence[TokenSpan], gamma: float) -> Floats:
    """Return [steps] of every step from its own rewards on."""
    return returns_to_go(np.array([span.value or 0.0 for span in spans]), gamma)


def build(params: Params) -> Algorithm:
    """Fill credit."""
    normalise = PRESETS["paper"].normalise if params.scale else None
    over_steps = params.numerics == "code"
    return Algorithm(
        name="gigpo",
        plan=FixedGroup(params.group_size),
        credit=EpisodesAndSteps(params.gamma, params.step_weight, normalise, over_steps),
        objective=Clipped(),
    )
