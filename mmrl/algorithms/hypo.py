"""HyPO: DPO on stored pairs, KL on the policy's own answers. arXiv 2406.01462.

With `rollout.stored: 2` the best and the worst stored answer of a record are its pair, and what is
sampled beside them carries the KL alone. A group without a stored pair has the KL only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import is_uniform, pair
from mmrl.algorithms.stages.pairs import GroupParams, best_against_worst, on_pairs, on_tokens
from mmrl.objectives.online_kl import SAMPLED, HyPO
from mmrl.stage import Context, Stage
from mmrl.types import Floats, Group, TrainSample

SUMMARY = "DPO on stored pairs and a KL on what the policy samples beside them"
PAPER = "arXiv 2406.01462"


class Params(GroupParams):
    beta: float = Field(0.1, gt=0)
    online: float = Field(1e-4, ge=0, description="weight of the KL of sampled answers")


@dataclass(frozen=True)
class StoredPairsAndSampled(Stage):
    """Ranks of the stored pair, and 1 on every token [T] of what the policy sampled."""

    gives: ClassVar[str] = SAMPLED

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        return [s for i, group in enumerate(groups) for s in self._samples(group, i)]

    def _samples(self, group: Group, index: int) -> list[TrainSample]:
        stored = np.array([bool(np.isnan(r.logprobs).any()) for r in group.responses])
        ranks = self._ranks(np.where(stored, group.rewards, np.nan))
        taught = np.isfinite(ranks) | ~stored
        return [
            replace(sample, mask=sample.mask & kept, second=second)
            for sample, kept, second in zip(
                pair(group, np.nan_to_num(ranks), index),
                taught,
                on_tokens(group, 1.0 - stored),
                strict=True,
            )
        ]

    def _ranks(self, rewards: Floats) -> Floats:
        return rewards * np.nan if is_uniform(rewards) else best_against_worst(rewards)


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    objective = HyPO(params.beta, params.online)
    return on_pairs("hypo", params, objective, StoredPairsAndSampled())
