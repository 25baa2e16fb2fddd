"""MODPO: preferences of one reward part, corrected by what the others pay. arXiv 2310.03708.

Pairs are of the part's values. The other parts are the objectives beside it, by `others`; without
those, every other part of the reward counts alike, so that the weights add up to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import outcomes
from mmrl.algorithms.stages.pairs import Paired, PairParams, on_pairs, on_tokens
from mmrl.objectives.other_objectives import MODPO, OTHERS
from mmrl.stage import Context
from mmrl.types import Floats, Group, TrainSample

SUMMARY = "DPO of one reward part with the other parts as margins"
PAPER = "arXiv 2310.03708"


class Params(PairParams):
    part: str | None = Field(
        None, description="reward part that preferences are of; default: `accuracy`, or the whole"
    )
    weight: float = Field(0.5, gt=0, le=1, description="of that part")
    others: Mapping[str, float] = Field(
        default_factory=dict, description="weights of the other parts; default: alike"
    )


@dataclass(frozen=True)
class WithOtherParts(Paired):
    """Pairs by one part, and the weighed sum of the others on every token [T]."""

    part: str | None = None
    weight: float = 0.5
    others: Mapping[str, float] = field(default_factory=dict)

    gives: ClassVar[str] = OTHERS

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        return [
            sample
            for index, group in enumerate(groups)
            for sample in self.samples(group, index, self.ranks(outcomes(group, self.part)))
        ]

    def second(self, group: Group, ranks: Floats) -> list[Floats]:
        paid = np.zeros(len(group.responses))
        for part, weight in self.weights(group).items():
            paid = paid + weight * np.nan_to_num(outcomes(group, part))
        return on_tokens(group, paid)

    def weights(self, group: Group) -> Mapping[str, float]:
        """Weights of the other parts."""
        if self.others:
            return self.others
        named = dict.fromkeys(name for score in group.scores for name in score.parts)
        rest = [name for name in named if name != (self.part or "accuracy")]
        return dict.fromkeys(rest, (1 - self.weight) / max(len(rest), 1))


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    credit = WithOtherParts(
        params.pairs, part=params.part, weight=params.weight, others=params.others
    )
    return on_pairs("modpo", params, MODPO(params.beta, params.weight), credit)
