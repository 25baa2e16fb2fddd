"""KTO: each answer is good or bad by itself, against how far the policy is from the reference.

arXiv 2402.01306. Good is what earned at least `threshold`; groups of one kind teach too. The
reference point is the mean log-ratio of answers under the prompts of others, as in the paper; it is
measured before the step's updates, over the whole step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import outcomes, pair, scorable
from mmrl.algorithms.stages.pairs import GroupParams, on_pairs, on_tokens
from mmrl.algorithms.stages.policy_view import Mismatched, seen
from mmrl.objectives.unpaired import KTO, REFERENCE_POINT
from mmrl.stage import Context, Need, Stage
from mmrl.types import Floats, Group, TrainSample

SUMMARY = "good and bad answers, unpaired, against a reference point"
PAPER = "arXiv 2402.01306"


class Params(GroupParams):
    group_size: int = Field(8, gt=0)
    beta: float = Field(0.1, gt=0)
    good: float = Field(1.0, gt=0, description="weight of good answers")
    bad: float = Field(1.0, gt=0, description="weight of bad answers")
    threshold: float = Field(0.5, description="what a good answer earns at least")
    part: str | None = Field(None, description="reward part that says so; default: the reward")


@dataclass(frozen=True)
class GoodOrBad(Stage):
    """1 for good and -1 for bad responses, and the step's reference point on every token [T]."""

    threshold: float = 0.5
    part: str | None = None

    needs: ClassVar[frozenset[Need]] = frozenset({"mismatched"})
    gives: ClassVar[str] = REFERENCE_POINT

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        point = reference_point([seen(g, Mismatched, "mismatched").value for g in groups])
        return [
            replace(sample, second=second)
            for index, group in enumerate(groups)
            for sample, second in zip(
                pair(group, self._labels(group), index),
                on_tokens(group, np.full(len(group.responses), point)),
                strict=True,
            )
        ]

    def _labels(self, group: Group) -> Floats:
        earned = group.rewards if self.part is None else outcomes(group, self.part)
        return np.where(scorable(earned), np.where(earned >= self.threshold, 1.0, -1.0), 0.0)


def reference_point(log_ratios: Sequence[float]) -> float:
    """The mean of log-ratios, at least 0: an estimate of KL(policy || reference)."""
    return max(float(np.mean(log_ratios)), 0.0) if log_ratios else 0.0


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    objective = KTO(params.beta, params.good, params.bad)
    return on_pairs("kto", params, objective, GoodOrBad(params.threshold, params.part))
