"""Train samples -> gradients: the algorithm's objective over packed rows, one update at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mmrl.algorithm import Algorithm
from mmrl.algorithms.credit import pair
from mmrl.backend.backend import Backend
from mmrl.errors import UserError
from mmrl.losses import (
    TokenBatch,
    kl_loss,
    policy_loss,
    positive_share,
    reduce,
    token_batch,
    token_weights,
)
from mmrl.packing import Weighted, pack
from mmrl.policy.attention import active_layout
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import lay_out
from mmrl.types import Floats, Group, TrainSample


@dataclass(frozen=True)
class UpdateStats:
    """What one step's updates did; means are over trained tokens."""

    loss: float
    kl: float
    entropy: float
    grad_norm: float
    clip_share: float
    tokens: int
    updates: int


class Learner:
    """Carries out an algorithm's objective, reducer, KL and update plan on a policy."""

    def __init__(
        self,
        policy: Policy,
        algorithm: Algorithm,
        backend: Backend,
        *,
        temperature: float,
        tokens_per_micro_batch: int | None = None,
    ) -> None:
        self._policy, self._algorithm, self._backend = policy, algorithm, backend
        self._temperature = temperature
        self._budget = tokens_per_micro_batch or micro_batch_tokens(policy.device)
        self._reference = policy.frozen_copy() if "reference" in algorithm.needs else None

    def update(self, samples: Sequence[TrainSample], kl_coefficient: float) -> UpdateStats:
        """Train on the samples as the update plan says; raises UserError on a non-finite loss."""
        samples = self._with_old(self._with_reference(samples))
        plan = self._algorithm.updates
        stats = []
        for index in range(plan.passes):
            for part in _mini_batches(plan.select(samples, index), plan.mini_batches):
                if any(sample.mask.any() for sample in part):
                    with self._policy.learning(self._backend.updates):
                        stats.append(self._one_update(part, kl_coefficient))
        return _mean_stats(stats)

    def _one_update(self, samples: Sequence[TrainSample], kl_coefficient: float) -> UpdateStats:
        weights = token_weights(samples, self._algorithm.reducer)
        trainable = [Weighted(s, w) for s, w in zip(samples, weights, strict=True) if s.mask.any()]
        share = positive_share(samples)
        tally = _Tally()
        for rows in pack(trainable, self._budget, self._algorithm.objective.whole_groups):
            layout = lay_out([row.shared() for row in rows], self._policy.device)
            with active_layout(layout):
                prompts = [row.members[0].sample.prompt for row in rows]
                logprobs, entropy = self._policy.logprobs(layout, prompts, self._temperature)
                members = [member for row in rows for member in row.members]
                batch = token_batch(
                    [m.sample for m in members], [m.weights for m in members], logprobs, share
                )
                loss = self._loss(batch, kl_coefficient, tally)
                if not torch.isfinite(loss):
                    raise UserError(
                        "the loss is not finite: lower optimizer.learning_rate, or check the "
                        "rewards in rollouts.jsonl; the last checkpoint is from before this step"
                    )
                self._backend.backward(loss)
            tally.add(batch, loss, entropy)
        return tally.stats(self._backend.step())

    def _loss(self, batch: TokenBatch, kl_coefficient: float, tally: _Tally) -> Tensor:
        loss = policy_loss(batch, self._algorithm.objective)
        kl = self._algorithm.kl
        if kl is not None and batch.ref is not None:
            penalty = kl_loss(batch, kl)
            tally.kl += float(torch.where(batch.mask, penalty, 0.0).detach().sum())
            if kl.placement == "loss":
                loss = loss + kl_coefficient * reduce(penalty, batch)
        return loss

    def _with_reference(self, samples: Sequence[TrainSample]) -> Sequence[TrainSample]:
        if self._reference is None or not self._algorithm.loss_needs_reference:
            return samples
        values = self.score(samples, self._reference)
        return [replace(s, ref_logprobs=v) for s, v in zip(samples, values, strict=True)]

    def _with_old(self, samples: Sequence[TrainSample]) -> Sequence[TrainSample]:
        """Fill in missing old log-probs where the policy moves before they are last used."""
        missing = [i for i, sample in enumerate(samples) if sample.old_logprobs is None]
        if self._algorithm.updates.on_policy or not missing:
            return samples
        values = self.score([samples[i] for i in missing], self._policy)
        filled = list(samples)
        for i, value in zip(missing, values, strict=True):
            filled[i] = replace(samples[i], old_logprobs=value)
        return filled

    def observe(self, groups: Sequence[Group]) -> list[Group]:
        """Attach the reference log-probs of every response where rewards or credit use them."""
        if self._reference is None or not self._algorithm.rewards_need_reference:
            return list(groups)
        samples = [s for g in groups for s in pair(g, np.zeros(len(g.responses)), 0)]
        values = iter(self.score(samples, self._reference))
        return [
            replace(g, extra={**g.extra, "reference": [next(values) for _ in g.responses]})
            for g in groups
        ]

    @torch.no_grad()
    def score(self, samples: Sequence[TrainSample], policy: Policy) -> list[Floats]:
        """Log-probs [T] of every sample's response under its prompt by `policy`."""
        index = {id(s): i for i, s in enumerate(samples)}
        scored: list[Floats] = [np.zeros(len(s.response.ids)) for s in samples]
        unweighted = [Weighted(s, np.zeros(0)) for s in samples]
        for rows in pack(unweighted, self._budget):
            layout = lay_out([row.shared() for row in rows], policy.device)
            with active_layout(layout):
                prompts = [row.members[0].sample.prompt for row in rows]
                logprobs, _ = policy.logprobs(layout, prompts, self._temperature)
            members = [m.sample for row in rows for m in row.members]
            lengths = [len(m.response.ids) for m in members]
            for member, piece in zip(members, logprobs.split(lengths), strict=True):
                scored[index[id(member)]] = piece.double().cpu().numpy()
        return scored


def micro_batch_tokens(device: torch.device) -> int:
    """Trunk tokens of one forward where nothing is configured.

    A GPU wants large products. A core is busy with a thousand tokens, and more only take memory.
    """
    return 1024 if device.type == "cpu" else 16384


def _mini_batches(samples: Sequence[TrainSample], count: int) -> Iterator[Sequence[TrainSample]]:
    """Split into `count` parts at group boundaries, so that a group is never divided."""
    starts = [i for i, s in enumerate(samples) if i == 0 or s.group != samples[i - 1].group]
    for part in np.array_split(np.array(starts, dtype=int), min(count, max(len(starts), 1))):
        if len(part):
            after = [start for start in starts if start > part[-1]]
            yield samples[part[0] : after[0] if after else len(samples)]


class _Tally:
    """Sums over the micro-batches of one update."""

    def __init__(self) -> None:
        self.loss = self.kl = self.entropy = self.clipped = 0.0
        self.tokens = 0

    def add(self, batch: TokenBatch, loss: Tensor, entropy: Tensor) -> None:
        self.loss += float(loss.detach())
        self.entropy += float(entropy[batch.mask].sum())
        self.clipped += float((batch.log_ratio.detach().abs() > 0.2)[batch.mask].sum())
        self.tokens += int(batch.mask.sum())

    def stats(self, grad_norm: float) -> UpdateStats:
        tokens = max(self.tokens, 1)
        return UpdateStats(
            loss=self.loss,
            kl=self.kl / tokens,
            entropy=self.entropy / tokens,
            grad_norm=grad_norm,
            clip_share=self.clipped / tokens,
            tokens=self.tokens,
            updates=1,
        )


def _mean_stats(stats: Sequence[UpdateStats]) -> UpdateStats:
    if not stats:
        return UpdateStats(0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
    return UpdateStats(
        loss=float(np.mean([s.loss for s in stats])),
        kl=float(np.mean([s.kl for s in stats])),
        entropy=float(np.mean([s.entropy for s in stats])),
        grad_norm=float(np.mean([s.grad_norm for s in stats])),
        clip_share=float(np.mean([s.clip_share for s in stats])),
        tokens=sum(s.tokens for s in stats),
        updates=len(stats),
    )
