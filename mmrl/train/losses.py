"""Objectives, KL estimators and reducers: pure functions of aligned tensors.

A batch of response tokens is flat: every tensor is [M] over the tokens of all sequences, with
`sequence` [M] naming each token's sequence. Objectives return one loss a token; a reducer's
weights, counted over the whole optimiser step, turn them into one number. Micro-batching and
packing therefore never move the gradient. What is one value for a sequence or a group is
repeated on its tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmrl.algorithm import KL, KLEstimator, Objective, Reducer
from mmrl.algorithms.stages.objectives import (
    CISPO,
    CPGD,
    GVPO,
    MPO,
    NFT,
    REBEL,
    AStarPO,
    Clipped,
    DisCO,
    Likelihood,
    Preference,
    SimPO,
)
from mmrl.types import Bools, Floats, Ints, TrainSample


@dataclass(frozen=True)
class TokenBatch:
    """Aligned response tokens [M]: constants of the loss, and `logprobs` with its gradient.

    `old` is that of the policy itself where no other is known, for a ratio of 1. `weights` are the
    reducer's and are 0 where a token is masked. `sequence` [M] and `group` [M] count from 0 within
    the batch. `positive` [M] marks the tokens of positive samples, `positive_share` their share of
    the whole step's trained tokens. `correction` [M] are weights of the policy's losses.
    """

    logprobs: Tensor
    advantages: Tensor
    weights: Tensor
    mask: Tensor
    sequence: Tensor
    group: Tensor
    num_sequences: int
    num_groups: int
    old: Tensor
    positive: Tensor
    positive_share: float
    ref: Tensor | None = None
    correction: Tensor | None = None

    @property
    def log_ratio(self) -> Tensor:
        """log(policy / old policy) [M]; on-policy its value is 0, its gradient that of log-prob."""
        return self.logprobs - self.old

    @property
    def reference(self) -> Tensor:
        """Reference log-probs [M], which must be there."""
        assert self.ref is not None, "this loss needs reference log-probs"
        return self.ref

    def sequence_sum(self, values: Tensor) -> Tensor:
        """Sum token values [M] over the unmasked tokens of each sequence [sequences]."""
        kept = torch.where(self.mask, values, 0.0)
        return kept.new_zeros(self.num_sequences).index_add(0, self.sequence, kept)

    def sequence_mean(self, values: Tensor) -> Tensor:
        """Mean over the unmasked tokens of each sequence [sequences]; 0 where there are none."""
        return self.sequence_sum(values) / self.lengths.clamp(min=1)

    @property
    def lengths(self) -> Tensor:
        """Unmasked tokens of each sequence [sequences]."""
        return self.sequence_sum(torch.ones_like(self.logprobs))

    @property
    def sequence_advantages(self) -> Tensor:
        """The advantage of each sequence [sequences], where all of its tokens share one."""
        return self.sequence_mean(self.advantages)

    def members(self) -> list[Tensor]:
        """Indices of the sequences of each group that have an unmasked token, group by group."""
        owner = self.group.new_full((self.num_sequences,), -1)
        owner[self.sequence[self.mask]] = self.group[self.mask]
        return [torch.nonzero(owner == g)[:, 0] for g in range(self.num_groups)]

    def spread_groups(self, losses: Sequence[Tensor]) -> Tensor:
        """Repeat one loss a group on all of the group's tokens [M]."""
        return torch.stack(list(losses))[self.group]


@dataclass(frozen=True)
class Bounds:
    """What the bounds of an objective did to its tokens [M]; None where it has no such bound.

    `low`, `high`: a ratio beyond the lower or the upper bound took the policy gradient from the
    token's loss. `weight`: a factor of the token's gradient was bounded, and the gradient stayed.
    Tokens of advantage 0 have nothing to lose and are in none.
    """

    low: Tensor | None = None
    high: Tensor | None = None
    weight: Tensor | None = None


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
    )


def clipped(batch: TokenBatch, options: Clipped) -> Tensor:
    """Clipped surrogate [M]; see `Clipped`."""
    ratio, advantages = _ratio(batch, options), batch.advantages
    bounded = ratio.clamp(1 - options.low, 1 + options.high)
    unbounded = ratio if options.cap is None else ratio.clamp(max=options.cap)
    surrogate = torch.minimum(unbounded * advantages, bounded * advantages)
    if options.dual is not None:
        floor = torch.maximum(surrogate, options.dual * advantages)
        surrogate = torch.where(advantages < 0, floor, surrogate)
    return _imitation(batch, options.imitation) - surrogate


def bounds_of_clipped(batch: TokenBatch, options: Clipped) -> Bounds:
    """What the clip takes away: by the advantage's sign, of whichever ratio `options` compares.

    An imitation term's gradient stays.
    """
    ratio, advantages = _ratio(batch, options).detach(), batch.advantages
    # The better of both surrogates is bounded by the nearer bound above, the worse by the farther.
    near = 1 + options.high if options.cap is None else min(1 + options.high, options.cap)
    far = math.inf if options.cap is None else max(1 + options.high, options.cap)
    if options.dual is not None:
        far = min(far, options.dual)
    above = ((advantages > 0) & (ratio > near)) | ((advantages < 0) & (ratio > far))
    return Bounds(low=(advantages < 0) & (ratio < 1 - options.low), high=above)


def _ratio(batch: TokenBatch, options: Clipped) -> Tensor:
    log_ratio = batch.log_ratio
    match options.ratio:
        case "token":
            return log_ratio.exp()
        case "sequence-sum":
            return batch.sequence_sum(log_ratio).exp()[batch.sequence]
        case "sequence-mean":
            return batch.sequence_mean(log_ratio).exp()[batch.sequence]
        case "sequence-token":
            level = batch.sequence_mean(log_ratio).detach()[batch.sequence]
            return (level + batch.logprobs - batch.logprobs.detach()).exp()


def _imitation(batch: TokenBatch, coefficient: float) -> Tensor:
    """Mean negative log-likelihood of the step's positive tokens, under a token-mean reducer."""
    if not coefficient or not batch.positive_share:
        return torch.zeros_like(batch.logprobs)
    return -batch.logprobs * batch.positive * (coefficient / batch.positive_share)


def likelihood(batch: TokenBatch, options: Likelihood) -> Tensor:
    """Advantage-weighted negative log-likelihood [M]."""
    return -batch.logprobs * batch.advantages


def cispo(batch: TokenBatch, options: CISPO) -> Tensor:
    """REINFORCE with the clipped ratio as a constant weight [M]; see `CISPO`."""
    weight = batch.log_ratio.detach().exp().clamp(options.low, options.high)
    return -weight * batch.advantages * batch.logprobs


def bounds_of_cispo(batch: TokenBatch, options: CISPO) -> Bounds:
    """Weights that were bounded; no token loses its gradient."""
    ratio = batch.log_ratio.detach().exp()
    outside = (ratio < options.low) | (ratio > options.high)
    return Bounds(weight=(batch.advantages != 0) & outside)


def cpgd(batch: TokenBatch, options: CPGD) -> Tensor:
    """Clipped log-likelihood and policy drift [M]; see `CPGD`.

    The drift has the gradient of k3 of KL(old || policy), with its weight bounded by 1.
    """
    above = torch.minimum(batch.logprobs, batch.old + math.log1p(options.high))
    below = torch.maximum(batch.logprobs, batch.old + math.log1p(-options.low))
    clipped_logprobs = torch.where(batch.advantages > 0, above, below)
    drift = torch.expm1(batch.log_ratio.detach()).clamp(max=2.0) * batch.logprobs
    return options.drift * drift - batch.advantages * clipped_logprobs


def bounds_of_cpgd(batch: TokenBatch, options: CPGD) -> Bounds:
    """Tokens whose advantage no longer acts; the drift, which pulls them back, does."""
    log_ratio, advantages = batch.log_ratio.detach(), batch.advantages
    return Bounds(
        low=(advantages < 0) & (log_ratio < math.log1p(-options.low)),
        high=(advantages > 0) & (log_ratio > math.log1p(options.high)),
    )


def gvpo(batch: TokenBatch, options: GVPO) -> Tensor:
    """Squared residuals of a group over 2 (G - 1), on all of its tokens [M]; see `GVPO`.

    A group of one has nothing to compare with and gets 0.
    """
    implied = options.beta * batch.sequence_sum(batch.log_ratio)
    rewards = batch.sequence_advantages

    def loss(members: Tensor) -> Tensor:
        if len(members) < 2:
            return implied.sum() * 0.0
        centred = [v[members] - v[members].mean() for v in (implied, rewards)]
        return (centred[0] - centred[1]).square().sum() / (2 * (len(members) - 1))

    return batch.spread_groups([loss(members) for members in batch.members()])


def disco(batch: TokenBatch, options: DisCO) -> Tensor:
    """Negative discriminative score of a group and its KL constraint [M]; see `DisCO`.

    A group of one class has score 0.
    """
    by_token = batch.logprobs if options.score == "log-likelihood" else batch.log_ratio.exp()
    scores, labels = batch.sequence_mean(by_token), batch.sequence_advantages
    kl = batch.sequence_sum(-batch.log_ratio)

    def loss(members: Tensor) -> Tensor:
        right, wrong = members[labels[members] > 0], members[labels[members] < 0]
        drift = kl[members].sum() / batch.lengths[members].sum().clamp(min=1)
        hinge = (options.beta * (drift.detach() - options.delta)).clamp(min=0) * drift
        if not len(right) or not len(wrong):
            return hinge
        return hinge + _soft_max(scores[wrong], options.tau) - scores[right].mean()

    return batch.spread_groups([loss(members) for members in batch.members()])


def _soft_max(scores: Tensor, tau: float | None) -> Tensor:
    """tau log mean exp(score / tau), which is the mean where tau is None (infinite)."""
    if tau is None:
        return scores.mean()
    return tau * ((scores / tau).logsumexp(0) - math.log(len(scores)))


def nft(batch: TokenBatch, options: NFT) -> Tensor:
    """Negative log of the right, and of the implied wrong policy's, ratio [M]; see `NFT`."""
    right, ratio, implied, accuracy = _implied(batch, options)
    # The value is clamped, the slope is kept.
    bounded = implied + (implied.clamp(min=options.epsilon) - implied).detach()
    loss = torch.where(right, -ratio.log(), -options.negative * bounded.log())
    match options.weight:
        case "linear":
            loss = loss * (1 - accuracy)
        case "root":
            loss = loss * ((1 - accuracy) / accuracy).sqrt()
        case "none":
            pass
    return torch.where(batch.advantages == 0, 0.0, loss)


def bounds_of_nft(batch: TokenBatch, options: NFT) -> Bounds:
    """Ratios beyond the largest, which lose their gradient, and implied ratios at their floor."""
    right, _, implied, _ = _implied(batch, options)
    taught = batch.advantages != 0
    above = taught & (batch.log_ratio.detach() > options.max_log_ratio)
    floored = taught & ~right & (implied.detach() < options.epsilon)
    return Bounds(high=above, weight=floored & ~above)


def _implied(batch: TokenBatch, options: NFT) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Right tokens, their ratio, that of the implied wrong policy, the group's accuracy [M]."""
    right = batch.advantages > 0
    accuracy = torch.where(right, 1 - batch.advantages, -batch.advantages).clamp(0.02, 0.98)
    ratio = batch.log_ratio.clamp(max=options.max_log_ratio).exp()
    return right, ratio, (1 - accuracy * ratio) / (1 - accuracy), accuracy


def a_star_po(batch: TokenBatch, options: AStarPO) -> Tensor:
    """Squared residual of each sequence, on all of its tokens [M]; see `AStarPO`."""
    implied = options.beta * batch.sequence_sum(batch.logprobs - batch.reference)
    return (implied - batch.sequence_advantages).square()[batch.sequence]


def rebel(batch: TokenBatch, options: REBEL) -> Tensor:
    """Mean squared residual over the pairs of a group, on all of its tokens [M]; see `REBEL`."""
    residuals = batch.sequence_sum(batch.log_ratio) - options.eta * batch.sequence_advantages

    def loss(members: Tensor) -> Tensor:
        first, second = torch.combinations(members).unbind(-1)
        if not len(first):
            return residuals.sum() * 0.0
        return (residuals[first] - residuals[second]).square().mean()

    return batch.spread_groups([loss(members) for members in batch.members()])


def preference(batch: TokenBatch, options: Preference) -> Tensor:
    """Mean pair loss of a group, on all of its tokens [M]; see `Preference`."""
    total = batch.sequence_mean if options.average else batch.sequence_sum
    implied = total(batch.logprobs - batch.reference)

    def loss(margins: Tensor) -> Tensor:
        if options.loss == "ipo":
            return (margins - 1 / (2 * options.beta)).square()
        return -F.logsigmoid(options.beta * margins)

    return _over_pairs(batch, implied, loss)


def simpo(batch: TokenBatch, options: SimPO) -> Tensor:
    """Mean pair loss of a group, on all of its tokens [M]; see `SimPO`."""
    return _over_pairs(
        batch,
        batch.sequence_mean(batch.logprobs),
        lambda margins: -F.logsigmoid(options.beta * margins - options.margin),
    )


def mpo(batch: TokenBatch, options: MPO) -> Tensor:
    """Weighted preference, quality and generation losses of a group [M]; see `MPO`."""
    implied = options.beta * batch.sequence_sum(batch.logprobs - batch.reference)
    likelihoods, labels = batch.sequence_mean(batch.logprobs), batch.sequence_advantages

    def loss(members: Tensor) -> Tensor:
        chosen, rejected = members[labels[members] > 0], members[labels[members] < 0]
        if not len(chosen) or not len(rejected):
            return implied.sum() * 0.0
        good, bad = implied[chosen], implied[rejected]
        middle = torch.cat([good, bad]).detach().mean()
        preferred = -F.logsigmoid(good[:, None] - bad[None]).mean()
        quality = -F.logsigmoid(good - middle).mean() - F.logsigmoid(middle - bad).mean()
        written = -likelihoods[chosen].mean()
        return (
            options.preference * preferred
            + options.quality * quality
            + options.generation * written
        )

    return batch.spread_groups([loss(members) for members in batch.members()])


def _over_pairs(batch: TokenBatch, values: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of `loss` over the (chosen - rejected) values of each group; 0 without a pair."""
    labels = batch.sequence_advantages

    def mean_loss(members: Tensor) -> Tensor:
        chosen, rejected = members[labels[members] > 0], members[labels[members] < 0]
        if not len(chosen) or not len(rejected):
            return values.sum() * 0.0
        return loss(values[chosen][:, None] - values[rejected][None]).mean()

    return batch.spread_groups([mean_loss(members) for members in batch.members()])


OBJECTIVES: dict[type[Objective], Callable[[TokenBatch, Any], Tensor]] = {
    Clipped: clipped,
    Likelihood: likelihood,
    CISPO: cispo,
    CPGD: cpgd,
    GVPO: gvpo,
    DisCO: disco,
    NFT: nft,
    AStarPO: a_star_po,
    REBEL: rebel,
    Preference: preference,
    SimPO: simpo,
    MPO: mpo,
}
"""The function that computes each objective; another package may add its own type here."""

BOUNDS: dict[type[Objective], Callable[[TokenBatch, Any], Bounds]] = {
    Clipped: bounds_of_clipped,
    CISPO: bounds_of_cispo,
    CPGD: bounds_of_cpgd,
    NFT: bounds_of_nft,
}
"""What the bounds of each objective did; one that is not here has none."""


def bounds(batch: TokenBatch, objective: Objective) -> Bounds:
    """What the objective's bounds did to each token; nothing where it has none."""
    found = BOUNDS.get(type(objective))
    return Bounds() if found is None else found(batch, objective)


def policy_loss(batch: TokenBatch, objective: Objective) -> Tensor:
    """The reduced policy objective, every token's loss times its correction."""
    losses = OBJECTIVES[type(objective)](batch, objective)
    return reduce(losses if batch.correction is None else losses * batch.correction, batch)


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
    ref = batch.reference
    if kl.clamp is not None:
        ref = batch.logprobs - (batch.logprobs - ref).clamp(-kl.clamp, kl.clamp)
    value = kl_estimate(batch.logprobs, ref, kl.estimator)
    if kl.straight_through:
        slope = kl_estimate(batch.logprobs, ref, "k2")
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
    masks = [sample.mask for sample in samples]
    groups = np.array([sample.group for sample in samples])
    if not reducer.lead_tokens:
        return _weights(masks, groups, reducer)
    leads = [mask & (np.arange(len(mask)) < reducer.lead_tokens) for mask in masks]
    rests = [mask & ~lead for mask, lead in zip(masks, leads, strict=True)]
    apart = (_weights(leads, groups, reducer), _weights(rests, groups, reducer))
    return [reducer.lead_weight * lead + rest for lead, rest in zip(*apart, strict=True)]


def _weights(masks: Sequence[Bools], groups: Ints, reducer: Reducer) -> list[Floats]:
    lengths = np.array([float(mask.sum()) for mask in masks])
    each = _sequence_weights(lengths, groups, reducer)
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


def self_certainty(logits: Tensor) -> Tensor:
    """KL(uniform || policy) + log V of every token: logits [M, V] -> [M].

    Intuitor, arXiv 2505.19590.
    """
    return logits.logsumexp(-1) - logits.mean(-1)


def value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Half the squared error of a critic [M], pessimistic beyond `clip` of its old values."""
    error = (values - returns).square()
    if clip is not None:
        near = old + (values - old).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns).square())
    return error / 2
