"""Turn-level credit (MT-GRPO): a turn's tokens earn the outcome and the turns still ahead.

arXiv 2505.11821 defines two turns: those up to the tool call earn both advantages, those after
its result the outcome's. More turns are a variant: the sum of the turn advantages still ahead. A
response of one turn gets the advantage of the summed rewards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import (
    PRESETS,
    FixedGroup,
    Normalise,
    Numerics,
    group_relative,
    pair,
)
from mmrl.algorithms.stages.turns import by_turn, turns
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Need, Stage
from mmrl.types import Floats, Group, TrainSample
from mmrl.validation import Section

SUMMARY = "advantages by turn: the outcome plus the turns still ahead"
PAPER = "arXiv 2505.11821"


class Params(Section):
    group_size: int = Field(21, gt=1)
    turn_weight: float = Field(1.0, ge=0)
    numerics: Numerics = "trl"


@dataclass(frozen=True)
class OutcomeAndTurns(Stage):
    """A^O + weight x sum of A^T from this turn on, on the tokens of every turn."""

    weight: float
    normalise: Normalise

    needs: ClassVar[frozenset[Need]] = frozenset({"turns"})

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        return [s for i, group in enumerate(groups) for s in self._samples(group, i)]

    def _samples(self, group: Group, index: int) -> list[TrainSample]:
        spans = turns(group)
        count = max((len(row) for row in spans), default=0)
        earned = np.full((len(spans), count), np.nan)
        for i, row in enumerate(spans):
            earned[i, : len(row)] = [np.nan if s.value is None else s.value for s in row]
        values = self.turn_advantages(group.rewards, earned)
        alone = group_relative(group.rewards + np.nansum(earned, axis=1), self.normalise)
        return [
            replace(
                sample,
                advantages=by_turn(
                    sample.response, row, value[: len(row)] if len(row) > 1 else [single] * len(row)
                ),
            )
            for sample, row, value, single in zip(
                pair(group, alone, index), spans, values, alone, strict=True
            )
        ]

    def turn_advantages(self, outcomes: Floats, earned: Floats) -> Floats:
        """Advantages [G, turns] of outcomes [G] and turn rewards [G, turns] (NaN: none)."""
        own = [group_relative(column, self.normalise) for column in earned.T]
        ahead = np.cumsum(own[::-1], axis=0)[::-1].T if own else np.zeros_like(earned)
        return group_relative(outcomes, self.normalise)[:, None] + self.weight * ahead


def build(params: Params) -> Algorithm:
    """Fill credit."""
    return Algorithm(
        name="turn_level",
        plan=FixedGroup(params.group_size),
        credit=OutcomeAndTurns(params.turn_weight, PRESETS[params.numerics].normalise),
        objective=Clipped(),
    )
