"""Train samples -> gradients: the algorithm's objective over packed rows, one update at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrl.algorithm import Algorithm, Need, Updates
from mmrl.algorithms.credit import pair
from mmrl.backend.agreement import Agreement, passes
from mmrl.backend.backend import Backend
from mmrl.backend.world import World
from mmrl.correction import Activity, Correction, correct
from mmrl.critic import Critic, explained_variance
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
from mmrl.measure import (
    Measure,
    attach,
    certainty,
    entropy,
    head_gradient_norms,
    measured,
    token_offsets,
)
from mmrl.packing import Row, Weighted, pack
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
    value_loss: float | None = None
    value_explained: float | None = None
    correction_weight: float | None = None
    correction_bounded: float | None = None
    correction_mismatch: float | None = None


class Learner:
    """Carries out an algorithm's objective, reducer, KL and update plan on a policy."""

    def __init__(
        self,
        policy: Policy,
        algorithm: Algorithm,
        backend: Backend,
        *,
        temperature: float,
        tokens_per_micro_batch: int,
        reference: Policy | None = None,
        world: World | None = None,
        critic: Critic | None = None,
        correction: Correction | None = None,
    ) -> None:
        self._policy, self._algorithm, self._backend = policy, algorithm, backend
        self._temperature, self._budget = temperature, tokens_per_micro_batch
        self._critic = critic
        self._correction = correction
        if reference is None and "reference" in algorithm.needs:
            reference = policy.frozen_copy()
        self._reference = reference
        self._world = world or World()
        self._agreement = Agreement(self._world) if backend.in_step else None

    def update(self, samples: Sequence[TrainSample], kl_coefficient: float) -> UpdateStats:
        """Train on the samples as the update plan says; raises UserError on a non-finite loss."""
        samples = self._with_old(self._with_reference(samples))
        samples, activity = self._corrected(samples)
        plan = self._algorithm.updates
        stats, judged = [], []
        for part in _parts(samples, plan):
            if self._critic is not None:
                judged.append(self._critic.update(part))
            if any(sample.mask.any() for sample in part):
                with self._policy.learning(self._backend.updates):
                    stats.append(self._one_update(part, kl_coefficient))
        return _with_critic(_with_activity(_mean_stats(stats), activity), judged, samples)

    def update_critic(self, samples: Sequence[TrainSample]) -> UpdateStats:
        """Train the critic on the samples as the update plan says; the policy stays as it is."""
        assert self._critic is not None, "an algorithm with steps for its critic has one"
        judged = [self._critic.update(p) for p in _parts(samples, self._algorithm.updates)]
        return _with_critic(_mean_stats([]), judged, samples)

    def _one_update(self, samples: Sequence[TrainSample], kl_coefficient: float) -> UpdateStats:
        weights = token_weights(samples, self._algorithm.reducer)
        trainable = [Weighted(s, w) for s, w in zip(samples, weights, strict=True) if s.mask.any()]
        share = positive_share(samples)
        tally = _Tally()
        own = [w for w in trainable if w.sample.prompt.home == self._world.rank]
        packed = pack(own, self._budget, self._algorithm.objective.whole_groups)
        for rows, last in passes(packed, self._agreement):
            shown = rows or [idle_row(trainable)]
            layout = lay_out([row.shared() for row in shown], self._policy.device)
            with active_layout(layout):
                prompts = [row.members[0].sample.prompt for row in shown]
                with self._in_step(self._policy):
                    logprobs, entropy = self._policy.logprobs(layout, prompts, self._temperature)
                if rows is None:
                    self._backend.backward(0.0 * logprobs.sum(), last=last)
                    continue
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
                self._backend.backward(loss, last=last)
            tally.add(batch, loss, entropy)
        tally.add_up(self._world)
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

    def _corrected(
        self, samples: Sequence[TrainSample]
    ) -> tuple[Sequence[TrainSample], Activity | None]:
        """Weigh what the engine sampled, where that is asked for; and what the weights did."""
        if self._correction is None:
            return samples, None
        return correct(samples, self.own(samples), self._correction)

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
        """Attach what rewards or credit read of every response: see `algorithm.NEEDS`."""
        found = list(groups)
        samples = [s for g in groups for s in pair(g, np.zeros(len(g.responses)), 0)]
        for need, values in self._observations(samples):
            found = attach(found, need, values)
        return found

    def _observations(self, samples: Sequence[TrainSample]) -> Iterator[tuple[str, Sequence[Any]]]:
        needs, policy, temperature = self._algorithm.needs, self._policy, self._temperature
        if self._reference is not None and self._algorithm.rewards_need_reference:
            yield "reference", self.score(samples, self._reference)
        makers: dict[Need, Callable[[Policy, float], Measure]] = {
            "entropy": entropy,
            "self_certainty": certainty,
        }
        wanted: dict[str, Measure] = {
            need: make(policy, temperature) for need, make in makers.items() if need in needs
        }
        if wanted:
            yield from measured(policy, samples, self._budget, wanted).items()
        if "values" in needs:
            assert self._critic is not None, "an algorithm with a critic needs one"
            yield "values", self._critic.values(samples)
        if "offsets" in needs:
            tokenizer = policy.processor.tokenizer
            yield "offsets", [token_offsets(tokenizer, s.response.ids) for s in samples]
        if "gradient_norms" in needs:
            norms = head_gradient_norms(policy, samples, self._budget, temperature)
            yield "gradient_norms", norms

    def own(self, samples: Sequence[TrainSample]) -> list[Floats]:
        """Log-probs [T] of every sample's response by the policy that learns."""
        return self.score(samples, self._policy)

    @contextmanager
    def _in_step(self, policy: Policy) -> Iterator[None]:
        """Keep the passes of the processes alike, where the backend needs that."""
        policy.lockstep = self._agreement
        yield
        policy.lockstep = None

    def score(self, samples: Sequence[TrainSample], policy: Policy) -> list[Floats]:
        """Log-probs [T] of every sample's response under its prompt by `policy`.

        Each process scores the samples whose media it has, and gets all values.
        """
        own = [i for i, s in enumerate(samples) if s.prompt.home == self._world.rank]
        scored = self._score_here([samples[i] for i in own], policy, samples)
        parts = self._world.gather(dict(zip(own, scored, strict=True)))
        merged = {i: values for part in parts for i, values in part.items()}
        return [merged[i] for i in range(len(samples))]

    @torch.no_grad()
    def _score_here(
        self, samples: Sequence[TrainSample], policy: Policy, everyone: Sequence[TrainSample]
    ) -> list[Floats]:
        index = {id(s): i for i, s in enumerate(samples)}
        scored: list[Floats] = [np.zeros(len(s.response.ids)) for s in samples]
        unweighted = [Weighted(s, np.zeros(0)) for s in samples]
        for rows, _ in passes(pack(unweighted, self._budget), self._agreement):
            shown = rows or [idle_row([Weighted(s, np.zeros(0)) for s in everyone])]
            layout = lay_out([row.shared() for row in shown], policy.device)
            with active_layout(layout), self._in_step(policy):
                prompts = [row.members[0].sample.prompt for row in shown]
                logprobs, _ = policy.logprobs(layout, prompts, self._temperature)
            if rows is None:
                continue
            members = [m.sample for row in rows for m in row.members]
            lengths = [len(m.response.ids) for m in members]
            for member, piece in zip(members, logprobs.split(lengths), strict=True):
                scored[index[id(member)]] = piece.double().cpu().numpy()
        return scored


def _with_activity(stats: UpdateStats, activity: Activity | None) -> UpdateStats:
    if activity is None:
        return stats
    return replace(
        stats,
        correction_weight=activity.weight,
        correction_bounded=activity.bounded,
        correction_mismatch=activity.mismatch,
    )


def idle_row(samples: Sequence[Weighted]) -> Row:
    """A short row without media, for a pass that is only made to keep in step."""
    sample = min(samples, key=lambda w: len(w.sample.prompt.ids)).sample
    return Row(
        (
            Weighted(
                replace(
                    sample,
                    prompt=replace(sample.prompt, media=(), order=None),
                    response=replace(sample.response, ids=sample.response.ids[:1]),
                ),
                np.zeros(1),
            ),
        )
    )


def _with_critic(
    stats: UpdateStats, losses: Sequence[float | None], samples: Sequence[TrainSample]
) -> UpdateStats:
    known = [loss for loss in losses if loss is not None]
    if not known:
        return stats
    return replace(
        stats, value_loss=float(np.mean(known)), value_explained=explained_variance(samples)
    )


def _parts(samples: Sequence[TrainSample], plan: Updates) -> Iterator[Sequence[TrainSample]]:
    """What each optimiser step of an update plan is made with, in order."""
    for index in range(plan.passes):
        yield from _mini_batches(plan.select(samples, index), plan.mini_batches)


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

    def add_up(self, world: World) -> None:
        """Add what the other processes have."""
        own = np.array([self.loss, self.kl, self.entropy, self.clipped, self.tokens])
        total = np.sum(world.gather(own), axis=0)
        self.loss, self.kl, self.entropy, self.clipped, tokens = map(float, total)
        self.tokens = int(tokens)

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
