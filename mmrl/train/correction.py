"""Importance weights for an engine whose log-probs are not quite the trainer's.

The weight of a token is the ratio of the trainer's probability, before the step's first update, to
the engine's. A sequence's is the product over its trained tokens, for each of them. Truncation
bounds a weight from above; masking drops what is above the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mmrl.types import Floats, TrainSample

Mode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


@dataclass(frozen=True)
class Correction:
    """How weights are made; `limit` is the largest that is left as it is.

    The four modes are TRL's `vllm_importance_sampling_mode`.
    """

    mode: Mode
    limit: float

    def weights(self, sampled: Floats, trained: Floats, mask: np.ndarray) -> tuple[Floats, Floats]:
        """Weights [T] of one response, bounded and not; 1 where `mask` is off."""
        difference = np.where(mask, trained - sampled, 0.0)
        if self.mode.startswith("sequence"):
            difference = np.where(mask, difference.sum(), 0.0)
        ratio = np.exp(difference)
        if self.mode.endswith("truncate"):
            return np.minimum(ratio, self.limit), ratio
        return np.where(ratio > self.limit, 0.0, ratio), ratio


@dataclass(frozen=True)
class Activity:
    """What a correction did in a step: means over trained tokens.

    `weight` is the mean weight, `bounded` the share of tokens that were truncated or masked, and
    `mismatch` the mean of engine minus trainer, an estimate of KL(engine || trainer).
    """

    weight: float
    bounded: float
    mismatch: float


def correct(
    samples: Sequence[TrainSample], trained: Sequence[Floats], correction: Correction
) -> tuple[list[TrainSample], Activity]:
    """Weigh every sample's tokens by the trainer's log-probs [T] against the engine's.

    What no engine sampled from its prompt has weight 1.
    """
    made: list[TrainSample] = []
    every = [np.zeros((3, 0))]
    for sample, own in zip(samples, trained, strict=True):
        if not sample.sampled:
            made.append(replace(sample, correction=np.ones(len(own))))
            continue
        sampled = sample.response.logprobs
        weights, ratio = correction.weights(sampled, own, sample.mask)
        made.append(replace(sample, correction=weights))
        gap = np.stack([weights, weights != ratio, sampled - own])
        every.append(gap[:, sample.mask])
    table = np.concatenate(every, axis=1)
    mean = table.mean(axis=1) if table.size else np.array([1.0, 0.0, 0.0])
    return made, Activity(*(float(value) for value in mean))
