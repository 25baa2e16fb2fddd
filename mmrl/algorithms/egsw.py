"""EGSW: advantages weighed by a softmax over the group of advantage and entropy (a variant).

arXiv 2503.22456. Its alpha and temperature are not published; weights are constants, entropies
those of the sampling policy, and the softmax at a token runs over the responses that reach it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import (
    PRESETS,
    FixedGroup,
    GroupCredit,
    Normalise,
    group_relative,
)
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Need, Stage, needed
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "entropy-guided weights over the group (variant)"
PAPER = "arXiv 2503.22456"


class Params(Section):
    group_size: int = Field(8, gt=1)
    alpha: float = Field(0.1, ge=0, description="weight of the entropy")
    temperature: float = Field(1.0, gt=0)
    level: Literal["token", "response"] = "token"


@dataclass(frozen=True)
class EntropyGuided(Stage):
    """Group-relative advantages [T] of every response times their weights."""

    alpha: float
    temperature: float
    level: Literal["token", "response"]
    normalise: Normalise = PRESETS["paper"].normalise

    needs: ClassVar[frozenset[Need]] = frozenset({"entropy"})

    def __call__(self, group: Group, context: Context) -> list[Floats]:
        advantages = group_relative(group.rewards, self.normalise)
        entropies = needed(group.extra.entropy, "entropy")
        if self.level == "response":
            entropies = [
                np.full(len(h), h[r.written].mean() if len(h) else 0.0)
                for h, r in zip(entropies, group.responses, strict=True)
            ]
        longest = max((len(h) for h in entropies), default=0)
        scores = np.full((len(entropies), longest), -np.inf)
        for row, advantage, entropy in zip(scores, advantages, entropies, strict=True):
            row[: len(entropy)] = self.scores(float(advantage), entropy)
        weights = softmax(scores)
        return [a * row[: len(h)] for a, row, h in zip(advantages, weights, entropies, strict=True)]

    def scores(self, advantage: float, entropy: Floats) -> Floats:
        """What the softmax compares, for every token [T]."""
        return (advantage + self.alpha * entropy) / self.temperature


def softmax(scores: Floats) -> Floats:
    """Softmax over the first axis of [n, ...]; minus infinity gets 0."""
    largest = scores.max(axis=0, initial=-np.inf)
    powers = np.exp(scores - np.where(np.isfinite(largest), largest, 0.0))
    return np.asarray(powers / np.maximum(powers.sum(axis=0), 1e-300))


def build(params: Params) -> Algorithm:
    """Fill credit."""
    guided = EntropyGuided(params.alpha, params.temperature, params.level)
    return Algorithm(
        name="egsw",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(guided),
        objective=Clipped(),
    )
