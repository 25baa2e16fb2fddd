"""Train samples -> the tokens of a loss, their weights, and one number.

Denominators are counted over a whole optimiser step, so a step's micro-batches add up to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrl.objective import Objective, Reducer, TokenBatch
from mmrl.types import Bools, Floats, Ints, TrainSample


def token_batch(
    samples: Sequence[TrainSample],
    weights: Sequence[Floats],
    logprobs: Tensor,
    positive_share: float = 1.0,
) -> TokenBatch:
    """Align the constants of samples with their log-probs [M], in the order of the samples.

    Where some samples have old log-probs, the ratio of the others is 1. Masked tokens are 0
    everywhere, so that nothing of theirs (NaN, infinite) reaches the loss or its gradient.
    """

    lengths = [len(s.response.ids) for s in samples]

    def flat(arrays: Sequence[np.ndarray[Any, Any]]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(logprobs.device)

    def each(values: Sequence[Any]) -> Tensor:
        return flat([np.repeat(np.asarray(values), lengths)])

    def floats(arrays: Sequence[Floats | None]) -> Tensor:
        known = [np.zeros(n) if a is None else a for a, n in zip(arrays, lengths, strict=True)]
        return torch.where(mask, flat(known).to(logprobs.dtype), 0.0)

    mask = flat([s.mask for s in samples])
    logprobs = torch.where(mask, logprobs, 0.0)
    old = [s.old_logprobs for s in samples]
    ref = [s.ref_logprobs for s in samples]
    weighed = [s.correction for s in samples]
    second = [s.second for s in samples]
    assert len({r is None for r in ref}) <= 1, "reference log-probs for some samples only"
    groups, owner = np.unique([s.group for s in samples], return_inverse=True)
    unknown = each([o is None for o in old])
    return TokenBatch(
        logprobs=logprobs,
        advantages=floats([s.advantages for s in samples]),
        weights=floats(weights),
        mask=mask,
        sequence=each(range(len(samples))),
        group=each(owner.tolist()),
        num_sequences=len(samples),
        num_groups=len(groups),
        old=torch.where(unknown, logprobs.detach(), floats(old)),
        ref=None if any(r is None for r in ref) else floats(ref),
        positive=each([s.positive for s in samples]),
        positive_share=positive_share,
        correction=None if any(w is None for w in weighed) else floats(weighed),
        second=None if any(v is None for v in second) else floats(second),
    )


def policy_loss(batch: TokenBatch, objective: Objective) -> Tensor:
    """The reduced policy objective, a scalar: every token's loss times its correction."""
    losses = objective.losses(batch)
    return reduce(losses if batch.correction is None else losses * batch.correction, batch)


def reduce(token_losses: Tensor, batch: TokenBatch) -> Tensor:
    """Sum token losses [N] under the step-wide weights; masked tokens cannot leak NaN."""
    return torch.where(batch.mask, token_losses * batch.weights, 0.0).sum()


def token_weights(samples: Sequence[TrainSample], reducer: Reducer) -> list[Floats]:
    """Weights [T] of every sample's tokens, such that the loss is their weighted sum.

    Denominators are counted over all `samples` of an optimiser step. Every sequence counts in the
    mean over sequences, masked or empty ones too, and an episode with its branches is one; a step
    without any token to train on gets weight 0 everywhere.
    """
    masks = [sample.mask for sample in samples]
    whole = np.cumsum([not sample.branch for sample in samples], dtype=int) - 1
    assert not samples or whole[0] == 0, "a branch comes after its episode"
    groups = np.array([sample.group for sample in samples if not sample.branch])
    if not reducer.lead_tokens:
        return _weights(masks, whole, groups, reducer)
    leads = [mask & (np.arange(len(mask)) < reducer.lead_tokens) for mask in masks]
    rests = [mask & ~lead for mask, lead in zip(masks, leads, strict=True)]
    apart = (_weights(leads, whole, groups, reducer), _weights(rests, whole, groups, reducer))
    return [reducer.lead_weight * lead + rest for lead, rest in zip(*apart, strict=True)]


def _weights(masks: Sequence[Bools], whole: Ints, groups: Ints, reducer: Reducer) -> list[Floats]:
    """Weights of masks [T], parts of sequences that `whole` numbers and that are of `groups`."""
    sizes = [float(mask.sum()) for mask in masks]
    lengths = np.bincount(whole, weights=sizes, minlength=len(groups)).astype(float)
    each = _sequence_weights(lengths, groups, reducer)[whole]
    return [mask * weight for mask, weight in zip(masks, each, strict=True)]


def _sequence_weights(lengths: Floats, groups: Ints, reducer: Reducer) -> Floats:
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
        case "group-mean":
            names, owner = np.unique(groups, return_inverse=True)
            tokens = np.bincount(owner, weights=lengths, minlength=len(names))
            return np.asarray(1.0 / (max(len(names), 1) * np.maximum(tokens, 1.0))[owner])


def positive_share(samples: Sequence[TrainSample]) -> float:
    """Share of the trained tokens of a step that belong to positive samples."""
    total = sum(int(s.mask.sum()) for s in samples)
    return sum(int(s.mask.sum()) for s in samples if s.positive) / max(total, 1)


def largest_divergence(samples: Sequence[TrainSample], logprobs: Sequence[Floats]) -> float:
    """The largest KL(old policy || policy) of a trained token, in nats.

    It is estimated by r - 1 - log r, r the ratio of the policy's log-probs [T] to the old ones.
    """
    moved = np.concatenate(
        [
            (new - s.old_logprobs)[s.mask]
            for s, new in zip(samples, logprobs, strict=True)
            if s.old_logprobs is not None
        ]
        or [np.zeros(0)]
    )
    return float((np.expm1(moved) - moved).max(initial=0.0))


def value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Half the squared error of a critic [M], pessimistic beyond `clip` of its old values."""
    error = (values - returns).square()
    if clip is not None:
        near = old + (values - old).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns).square())
    return error / 2
