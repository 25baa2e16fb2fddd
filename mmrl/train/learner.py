"""Train samples -> gradients: the algorithm's objective over packed rows, one update at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import pair
from mmrl.backend.agreement import Agreement
from mmrl.backend.backend import Backend
from mmrl.backend.world import World
from mmrl.errors import TrainingError
from mmrl.objective import TokenBatch
from mmrl.policy.packing import Weighted
from mmrl.policy.policy import Policy
from mmrl.stage import Need
from mmrl.train.correction import Activity, Correction, correct
from mmrl.train.critic import Critic
from mmrl.train.extrapolation import Extrapolation
from mmrl.train.losses import (
    largest_divergence,
    policy_loss,
    positive_share,
    reduce,
    token_batch,
    token_weights,
)
from mmrl.train.measure import (
    Measure,
    attach,
    certainty,
    collision,
    entropy,
    head_gradient_norms,
    indecision,
    measured,
    token_offsets,
)
from mmrl.train.micro_batches import Packing, micro_batches, unweighted
from mmrl.train.old_logprobs import compared_with
from mmrl.train.reference import ReferencePolicy, Teacher
from mmrl.train.update_stats import Tally, UpdateStats, summary, with_activity, with_critic
from mmrl.train.views import with_collision, with_views
from mmrl.types import Floats, Group, TrainSample

ScoreWhole = Callable[[Sequence[TrainSample], bool], list[Floats]]
"""Log-probs [T] of samples, whose groups stay whole in a pass where that is asked."""


class Learner:
    """Carries out an algorithm's objective, reducer, KL and update plan on a policy.

    `other_engine`: what sampled computes log-probs by other code than the policy's. `kept_tokens`:
    so many of its prompts' the policy's rollouts keep for the update (`keeping.kept_tokens`).
    """

    def __init__(
        self,
        policy: Policy,
        algorithm: Algorithm,
        backend: Backend,
        *,
        temperature: float,
        tokens_per_micro_batch: int,
        reference: ReferencePolicy | None = None,
        world: World | None = None,
        critic: Critic | None = None,
        correction: Correction | None = None,
        other_engine: bool = False,
        kept_tokens: int = 0,
    ) -> None:
        self._policy, self._algorithm, self._backend = policy, algorithm, backend
        self._temperature, self._budget = temperature, tokens_per_micro_batch
        self._critic = critic
        self._correction = correction
        self._exact = policy.model.dtype == torch.float32 and not other_engine
        if reference is None and "reference" in algorithm.needs:
            own = ReferencePolicy([Teacher(policy.frozen_copy())])
            reference = own.with_features_of(policy)
        self._reference = reference
        self._world = world or World()
        self._agreement = Agreement(self._world) if backend.in_step else None
        ahead = algorithm.updates.extragradient
        self.extrapolation = Extrapolation(policy, backend) if ahead else None
        policy.kept.room = kept_tokens

    def update(
        self, samples: Sequence[TrainSample], kl_coefficient: float, step: int = 1
    ) -> UpdateStats:
        """Train on the samples as the update plan says; raises TrainingError on a non-finite loss.

        What the rollout has kept for it is used up. The learning rate is that of `step`, however
        many updates the steps before it made: with fewer groups than mini-batches, or nothing to
        train on, a step makes fewer than planned.
        """
        try:
            return self._update(samples, kl_coefficient, step)
        finally:
            self._policy.kept.clear()

    def _update(
        self, samples: Sequence[TrainSample], kl_coefficient: float, step: int
    ) -> UpdateStats:
        if self.extrapolation is not None:
            self.extrapolation.begin()
        samples, activity = self._compared(self._with_reference(samples))
        plan = self._algorithm.updates
        tallies: list[Tally] = []
        judged = []
        for number, part in self._parts(samples):
            chosen = [sample for _, sample in part]
            if self._critic is not None:
                judged.append(self._critic.update(chosen))
            if any(sample.mask.any() for sample in chosen):
                place = (step - 1) * plan.planned + number
                with self._policy.learning(self._backend.updates):
                    tallies.append(self._one_update(chosen, kl_coefficient, place))
        reached, fixes = self._brought_back(samples, kl_coefficient, step)
        if self._reference is not None:
            self._reference.follow(self._policy, step)
        stats = replace(summary(tallies), divergence=reached, fixes=fixes)
        return with_critic(with_activity(stats, activity), judged, samples)

    def _brought_back(
        self, samples: Sequence[TrainSample], kl_coefficient: float, step: int
    ) -> tuple[float | None, int | None]:
        """Update without advantages while a token is farther from the old policy than is allowed.

        Returns how far the farthest is in the end, and after how many updates; None: no matter.
        """
        plan = self._algorithm.updates
        trained = [sample for sample in samples if sample.mask.any()]
        if plan.trust is None or not trained:
            return None, None
        still = [replace(s, advantages=np.zeros_like(s.advantages)) for s in trained]
        made = 0
        while True:
            reached = largest_divergence(trained, self._by_policy(trained))
            if reached <= plan.trust or made == plan.fixes:
                return reached, made
            with self._policy.learning(self._backend.updates):
                self._one_update(still, kl_coefficient, step * plan.planned - 1)
            made += 1

    def update_critic(self, samples: Sequence[TrainSample]) -> UpdateStats:
        """Train the critic on the samples as the update plan says; the policy stays as it is."""
        assert self._critic is not None, "an algorithm with steps for its critic has one"
        self._policy.kept.clear()
        judged = [
            self._critic.update([sample for _, sample in part]) for _, part in self._parts(samples)
        ]
        return with_critic(UpdateStats(), judged, samples)

    def _parts(
        self, samples: Sequence[TrainSample]
    ) -> Iterator[tuple[int, list[tuple[int, TrainSample]]]]:
        """Each update of the plan by its number: its samples, with their places in `samples`."""
        plan = self._algorithm.updates
        for index in range(plan.passes):
            chosen = plan.select(samples, index)
            for number, places in enumerate(_mini_batches(chosen, plan.mini_batches)):
                yield index * plan.mini_batches + number, [(i, chosen[i]) for i in places]

    def _one_update(
        self, samples: Sequence[TrainSample], kl_coefficient: float, place: int
    ) -> Tally:
        weights = token_weights(samples, self._algorithm.reducer)
        trainable = [Weighted(s, w) for s, w in zip(samples, weights, strict=True) if s.mask.any()]
        share = positive_share(samples)
        tally = Tally()
        own = [w for w in trainable if w.sample.prompt.home == self._world.rank]
        packing = self._packing(self._algorithm.objective.whole_groups)
        send = self._backend.send_back
        for part in micro_batches(self._policy, own, packing, trainable, send):
            logprobs, entropy = self._policy.logprobs(
                part.layout, part.prompts, self._temperature, self._agreement
            )
            members = part.members
            if not members:
                self._backend.backward(0.0 * logprobs.sum(), last=part.last)
                continue
            batch = token_batch(
                [m.sample for m in members], [m.weights for m in members], logprobs, share
            )
            loss, kl = self._loss(batch, kl_coefficient)
            if not torch.isfinite(loss) and not self._backend.skips:
                raise TrainingError(
                    "the loss is not finite: lower optimizer.learning_rate, or check the "
                    "rewards in rollouts.jsonl; what was saved is from before this step"
                )
            self._backend.backward(loss, last=part.last)
            bounded = self._algorithm.objective.bounds(batch)
            tally.add(batch, loss, entropy=entropy, kl=kl, **vars(bounded))
        tally.add_up(self._world)
        made = self._backend.updates
        tally.grad_norm, tally.rate = self._backend.step(place), self._backend.rate(place)
        tally.skipped = self._backend.updates == made
        return tally

    def _loss(self, batch: TokenBatch, kl_coefficient: float) -> tuple[Tensor, Tensor | None]:
        """The loss of a micro-batch, and the KL of each token [M] wherever it is placed."""
        loss = policy_loss(batch, self._algorithm.objective)
        kl = self._algorithm.kl
        if kl is None or batch.ref is None:
            return loss, None
        penalty = kl.penalty(batch)
        if kl.placement == "loss":
            loss = loss + kl_coefficient * reduce(penalty, batch)
        return loss, penalty

    def _with_reference(self, samples: Sequence[TrainSample]) -> Sequence[TrainSample]:
        """Fill in the reference's log-probs of what is trained, but for those already measured."""
        algorithm = self._algorithm
        wanted = algorithm.loss_needs_reference or algorithm.rewards_need_reference
        if self._reference is None or not wanted:
            return samples
        missing = {i for i, s in enumerate(samples) if s.ref_logprobs is None}
        found = self._as_in_updates(samples, missing, self._by_reference)
        return [
            replace(s, ref_logprobs=found[i]) if i in found else s for i, s in enumerate(samples)
        ]

    def _compared(
        self, samples: Sequence[TrainSample]
    ) -> tuple[Sequence[TrainSample], Activity | None]:
        """Give samples their old log-probs, and weights where those are asked for."""
        several = not self._algorithm.updates.on_policy
        corrected = self._correction is not None
        samples = compared_with(samples, several=several, exact=self._exact, corrected=corrected)
        unknown = {i for i, s in enumerate(samples) if s.old_logprobs is None}
        wanted = unknown if several or corrected else set()
        own = self._as_in_updates(samples, wanted, self._by_policy)
        if several:
            samples = [
                replace(s, old_logprobs=own[i]) if i in own else s for i, s in enumerate(samples)
            ]
        if self._correction is None or not own:
            return samples, None
        values = [own.get(i, np.zeros(len(s.mask))) for i, s in enumerate(samples)]
        return correct(samples, values, self._correction)

    def _as_in_updates(
        self, samples: Sequence[TrainSample], wanted: set[int], score: ScoreWhole
    ) -> dict[int, Floats]:
        """Log-probs [T] by `score`, by place, of those wanted samples that will be trained.

        They share their passes with what they will share an update's with.
        """
        found: dict[int, Floats] = {}
        for _, part in self._parts(samples):
            trained = [(i, sample) for i, sample in part if sample.mask.any()]
            if {i for i, _ in trained} & wanted <= found.keys():
                continue
            whole = self._algorithm.objective.whole_groups
            values = score([sample for _, sample in trained], whole)
            for (i, _), value in zip(trained, values, strict=True):
                if i in wanted:
                    found.setdefault(i, value)
        return found

    def observe(self, groups: Sequence[Group]) -> list[Group]:
        """Attach what rewards or credit read of every response: see `algorithm.NEEDS`."""
        found = list(groups)
        samples = [s for i, g in enumerate(groups) for s in pair(g, np.zeros(len(g.responses)), i)]
        for need, values in self._observations(samples):
            found = (
                with_collision(found, values)
                if need == "collision"
                else attach(found, need, values)
            )
        return with_views(
            found,
            self._algorithm.needs,
            self._by_policy,
            self._by_reference if self._reference else None,
            self._policy.processor.tokenizer,
            self._algorithm.aid,
        )

    def _observations(self, samples: Sequence[TrainSample]) -> Iterator[tuple[str, Sequence[Any]]]:
        needs, policy, temperature = self._algorithm.needs, self._policy, self._temperature
        if self._reference is not None and self._algorithm.rewards_need_reference:
            yield "reference", self._by_reference(samples)
        makers: dict[Need, Callable[[Policy, float], Measure]] = {
            "entropy": entropy,
            "self_certainty": certainty,
            "collision": collision,
            "indecision": indecision,
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
        return self._by_policy(samples)

    def _by_policy(self, samples: Sequence[TrainSample], whole: bool = False) -> list[Floats]:
        return self.score(samples, self._policy, whole)

    def _by_reference(self, samples: Sequence[TrainSample], whole: bool = False) -> list[Floats]:
        assert self._reference is not None, "an algorithm that compares has a reference"
        return self._reference.logprobs(samples, lambda s, policy: self.score(s, policy, whole))

    def score(
        self, samples: Sequence[TrainSample], policy: Policy, whole_groups: bool = False
    ) -> list[Floats]:
        """Log-probs [T] of every sample's response under its prompt by `policy`.

        Each process scores the samples whose media it has, and gets all values.
        """
        if not samples:
            return []
        own = [i for i, s in enumerate(samples) if s.prompt.home == self._world.rank]
        scored = self._score_here([samples[i] for i in own], policy, samples, whole_groups)
        parts = self._world.gather(dict(zip(own, scored, strict=True)))
        merged = {i: values for part in parts for i, values in part.items()}
        return [merged[i] for i in range(len(samples))]

    @torch.no_grad()
    def _score_here(
        self,
        samples: Sequence[TrainSample],
        policy: Policy,
        everyone: Sequence[TrainSample],
        whole_groups: bool,
    ) -> list[Floats]:
        scored: list[Floats] = [np.zeros(len(s.response.ids)) for s in samples]
        packing = self._packing(whole_groups)
        parts = micro_batches(policy, unweighted(samples), packing, unweighted(everyone))
        for part in parts:
            logprobs, _ = policy.logprobs(
                part.layout, part.prompts, self._temperature, self._agreement
            )
            members = part.members
            lengths = [len(member.sample.response.ids) for member in members]
            pieces = logprobs.split(lengths) if members else ()
            for member, piece in zip(members, pieces, strict=True):
                scored[member.place] = piece.double().cpu().numpy()
        return scored

    def _packing(self, whole_groups: bool) -> Packing:
        return Packing(self._budget, whole_groups, self._agreement)


def _mini_batches(samples: Sequence[TrainSample], count: int) -> Iterator[range]:
    """Split into at most `count` parts, of whole groups each; yields the places of every part."""
    starts = [i for i, s in enumerate(samples) if i == 0 or s.group != samples[i - 1].group]
    for part in np.array_split(np.array(starts, dtype=int), min(count, max(len(starts), 1))):
        if len(part):
            after = [start for start in starts if start > part[-1]]
            yield range(part[0], after[0] if after else len(samples))
