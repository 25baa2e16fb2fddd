"""Objectives, KL estimators and reducers: pure functions of aligned tensors.

A batch of response tokens is flat: every tensor is [M] over the tokens of all sequences, with
`sequence` [M] naming each token's sequence. Objectives return one loss a token; a reducer's
weights, counted over the whole optimiser step, turn them into one number. Micro-batching and
packing therefore never move the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrl.algorithm import KL, KLEstimator, Reducer
from mmrl.types import Floats, TrainSample


@dataclass(frozen=True)
class TokenBatch:
    """Aligned response tokens [M]: constants of the loss, and `logprobs` with its gradient.

    `old` None means strictly on-policy. `weights` are the reducer's and are 0 where a token is
    masked. `sequence` counts from 0 within the batch; `group` [sequences] names rollout groups.
    """

    logprobs: Tensor
    advantages: Tensor
    weights: Tensor
    mask: Tensor
    sequence: Tensor
    num_sequences: int
    old: Tensor | None = None
    ref: Tensor | None = None

    @property
    def log_ratio(self) -> Tensor:
        """log(policy / old policy) [M]; on-policy its value is 0 and its gradient that of log-prob."""
        old = self.logprobs.detach() if self.old is None else self.old
        return self.logprobs - old


Objective = Callable[..., Tensor]


def clipped(
    batch: TokenBatch, *, low: float = 0.2, high: float = 0.2, dual: float | None = None
) -> Tensor:
    """PPO's clipped surrogate, per token [M]; `dual` bounds the loss of negative advantages.

    PPO, arXiv 1707.06347, equation 7; dual clip, arXiv 1912.09729, equation 5.
    """
    ratio = batch.log_ratio.exp()
    surrogate = torch.minimum(
        ratio * batch.advantages, ratio.clamp(1 - low, 1 + high) * batch.advantages
    )
    if dual is not None:
        floor = torch.maximum(surrogate, dual * batch.advantages)
        surrogate = torch.where(batch.advantages < 0, floor, surrogate)
    return -surrogate


def likelihood(batch: TokenBatch) -> Tensor:
    """Negative log-likelihood weighted by the advantage [M]: REINFORCE, or SFT at advantage 1."""
    return -batch.logprobs * batch.advantages


OBJECTIVES: dict[str, Objective] = {"clipped": clipped, "likelihood": likelihood}


def kl_estimate(logprobs: Tensor, ref: Tensor, estimator: KLEstimator) -> Tensor:
    """Per-token estimate of KL(policy || reference) [M] from samples of the policy.

    k1 = d, k2 = d^2 / 2, k3 = exp(-d) + d - 1 with d = log-prob - reference log-prob
    (Schulman, "Approximating KL divergence", 2020).
    """
    difference = logprobs - ref
    match estimator:
        case "k1":
            return difference
        case "k2":
            return difference.square() / 2
        case "k3":
            return torch.expm1(-difference) + difference


def kl_loss(batch: TokenBatch, kl: KL) -> Tensor:
    """The KL penalty of each token [M], without its coefficient."""
    assert batch.ref is not None, "a KL term needs reference log-probs"
    value = kl_estimate(batch.logprobs, batch.ref, kl.estimator)
    if kl.straight_through:
        slope = kl_estimate(batch.logprobs, batch.ref, "k2")
        return slope + (value - slope).detach()
    return value


def reduce(token_losses: Tensor, batch: TokenBatch) -> Tensor:
    """Sum token losses under the step-wide weights; masked tokens cannot leak NaN."""
    return torch.where(batch.mask, token_losses * batch.weights, 0.0).sum()


def token_weights(samples: Sequence[TrainSample], reducer: Reducer) -> list[Floats]:
    """Weights [T] of every sample's tokens, such that the loss is their weighted sum.

    Denominators are counted over all `samples` of an optimiser step. Every sequence counts in the
    mean over sequences, masked or empty ones too; a step without any token to train on gets
    weight 0 everywhere.
    """
    masks = [sample.mask.astype(float) for sample in samples]
    lengths = np.array([mask.sum() for mask in masks])
    return [
        mask * weight
        for mask, weight in zip(masks, _sequence_weights(lengths, reducer), strict=True)
    ]


def _sequence_weights(lengths: Floats, reducer: Reducer) -> Floats:
    count = max(len(lengths), 1)
    match reducer.name:
        case "seq-mean-token-mean":
            return np.asarray(1.0 / (count * np.maximum(lengths, 1.0)))
        case "token-mean":
            return np.full(len(lengths), 1.0 / max(float(lengths.sum()), 1.0))
        case "seq-mean-token-sum":
            return np.full(len(lengths), 1.0 / count)
        case "constant":
            assert reducer.length, "a constant reducer needs its length"
            return np.full(len(lengths), 1.0 / (count * reducer.length))


def policy_loss(batch: TokenBatch, name: str, options: dict[str, Any]) -> Tensor:
    """The reduced policy objective `name` (see OBJECTIVES)."""
    return reduce(OBJECTIVES[name](batch, **options), batch)
