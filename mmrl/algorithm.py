"""What an algorithm is: a frozen choice of stages. It knows neither torch nor the model.

    sampler  which prompts are asked next, from what was observed
    expand   Sample -> variants of it
    plan     prompts -> how many responses each
    shape    groups -> groups with shaped rewards (sees the whole group)
    edit     groups -> groups kept, dropped, replayed; may ask for more prompts
    credit   groups -> train samples with per-token advantages
    refine   train samples -> reweighted, masked or fewer train samples
    objective, reducer, kl, updates: what the learner carries out (`mmrl.objective`)

A stage with options is a frozen dataclass (`mmrl.stage`), so an algorithm prints as the numbers it
is made of. A module in `mmrl.algorithms` exposes `SUMMARY`, `PAPER`, `Params` (a config section)
and `build(params) -> Algorithm`; `mmrl.algorithms.compose` replaces single stages from a config. It
may say with `unused(params)` which common options it has no use for, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from mmrl.objective import KL, Objective, Reducer
from mmrl.stage import (
    Choosing,
    Context,
    Credit,
    Edit,
    EditStage,
    Expand,
    Length,
    Need,
    Plan,
    Refine,
    Sampler,
    Shape,
    Stage,
    needed,
    with_rewards,
)
from mmrl.types import Bools, Floats, Group, Response, Sample, TrainSample

TokenFilter = Callable[[TrainSample], Bools]


@dataclass(frozen=True)
class Updates:
    """How often a batch is trained on: `passes` over it, each in `mini_batches` optimiser steps.

    Pass p trains on the tokens that filter p (modulo their number) selects; no filter: on all.
    In the first `critic_steps` steps of a phase the critic learns alone; None: as many as
    `new_critic_steps`, but at most half of the phase, and none if the critic has learnt before.
    Where a trained token's KL(old policy || policy) is above `trust` after that, in nats, further
    updates without advantages bring it back, at most `fixes` of them. `extragradient`: every second
    step is made from where the one before began, with what that one's policy answers.
    """

    passes: int = 1
    mini_batches: int = 1
    filters: tuple[TokenFilter, ...] = ()
    critic_steps: Annotated[int, Field(ge=0)] | None = None
    new_critic_steps: Annotated[int, Field(ge=0)] = 0
    trust: Annotated[float, Field(gt=0)] | None = None
    fixes: Annotated[int, Field(ge=0)] = 8
    extragradient: bool = False

    @property
    def planned(self) -> int:
        """Optimiser steps of a batch with at least one group for every mini-batch."""
        return self.passes * self.mini_batches

    @property
    def on_policy(self) -> bool:
        """True if the policy never moves between sampling and the (only) update."""
        return self.planned == 1 and self.trust is None

    def critic_alone(self, steps: int, *, new: bool) -> int:
        """Return how many first steps of a phase of `steps` leave the policy as it is.

        `new`: the critic starts with the phase, it is neither loaded nor kept.
        """
        if self.critic_steps is not None:
            return min(self.critic_steps, steps)
        return min(self.new_critic_steps, steps // 2) if new else 0

    def select(self, samples: Sequence[TrainSample], index: int) -> list[TrainSample]:
        """Mask what pass `index` does not train on."""
        if not self.filters:
            return list(samples)
        chosen = self.filters[index % len(self.filters)]
        return [replace(s, mask=s.mask & chosen(s)) for s in samples]


@dataclass(frozen=True)
class Follows:
    """How an algorithm's reference follows the policy, unless a run says so (`reference`).

    After every `every` steps so much of it stays as `average` says, the rest is the policy's.
    """

    every: int = 1
    average: float = 0.0


@dataclass(frozen=True)
class Resets:
    """Answers that begin with a part of the record's own completion, for a `share` of the prompts.

    How long the part is, is drawn evenly, from nothing to all but the last of its tokens.
    """

    share: float = 1.0


@dataclass(frozen=True)
class Cuts:
    """Thinking that is cut at budgets (in tokens, ascending), with `answers` answers at every cut.

    Thinking ends with `marker`; where it is cut, `closing` is put in its place.
    """

    budgets: tuple[int, ...]
    answers: int = 4
    marker: str = "</think>"
    closing: str = "\n</think>\n"


def one_variant(sample: Sample, context: Context) -> Sequence[Sample]:
    """Ask each sample as it is: the `expand` of an algorithm without variants.

    >>> one_variant("a sample", None)
    ('a sample',)
    """
    return (sample,)


@dataclass(frozen=True)
class Algorithm:
    """The stages of one algorithm, in the order the trainer runs them.

    `length` is the longest response of a step (None: the run's own setting); `cuts` asks for
    answers at budgets of thinking, `resets` for answers from within the record's own;
    `prompt_factor` multiplies the prompts of a step. `follows` says how the reference moves, `aid`
    is what a prompt ends with where the need `aided` is measured.
    `always_on_policy` forbids several updates on a batch, `supervised` answers of the model's own.
    `notes` is what a run says of how it was composed, a line each.
    """

    name: str
    plan: Plan
    credit: Credit
    objective: Objective
    reducer: Reducer = field(default_factory=Reducer)
    kl: KL | None = None
    updates: Updates = Updates()
    sampler: Sampler | None = None
    expand: Expand = one_variant
    length: Length | None = None
    cuts: Cuts | None = None
    resets: Resets | None = None
    follows: Follows | None = None
    aid: str = ""
    prompt_factor: float = 1.0
    shape: tuple[Shape, ...] = ()
    edit: tuple[EditStage, ...] = ()
    refine: tuple[Refine, ...] = ()
    always_on_policy: bool = False
    supervised: bool = False
    extra_needs: frozenset[Need] = field(default_factory=frozenset)
    notes: tuple[str, ...] = ()

    @property
    def needs(self) -> frozenset[Need]:
        """Everything its stages need beyond rewards and sampled log-probs."""
        own = [needs for stage in self.stages() for needs in _nested_needs(stage)]
        reference: frozenset[Need] = frozenset({"reference"} if self.kl else ())
        return self.extra_needs.union(reference, *own)

    @property
    def loss_needs_reference(self) -> bool:
        """True if reference log-probs enter the loss, not only the rewards."""
        in_loss = self.kl is not None and self.kl.placement == "loss"
        return in_loss or "reference" in self.objective.needs

    @property
    def rewards_need_reference(self) -> bool:
        """True if reference log-probs are needed before the credit is given."""
        return self.kl is not None and self.kl.placement != "loss"

    def stages(self) -> Iterator[object]:
        """Every stage, in order."""
        yield from (self.sampler, self.expand, self.plan, *self.shape, *self.edit)
        yield from (self.credit, *self.refine, self.objective)

    def chooser(self, context: Context) -> Choosing | None:
        """What decides which prompts a step asks, if the algorithm has a say in it."""
        return None if self.sampler is None else Choosing(self.sampler, context)

    def observe(
        self, groups: Sequence[Group], samples: Sequence[TrainSample], context: Context
    ) -> None:
        """Let the sampler take in a step: its groups before editing, and what was trained on."""
        if self.sampler is not None:
            self.sampler.observe(groups, samples, context)

    def learnt(self, divergence: float, context: Context) -> None:
        """Let the credit take in how far a step's updates moved the policy, in nats."""
        if isinstance(self.credit, Stage):
            self.credit.learnt(divergence, context)

    def shape_rewards(self, groups: list[Group], context: Context) -> list[Group]:
        """Run the group-level reward shapers in order, then take the KL off the rewards."""
        for stage in self.shape:
            groups = stage(groups, context)
        if self.kl is None or self.kl.placement == "loss":
            return groups
        return [self._penalised(group, self.kl, context) for group in groups]

    def edit_groups(self, groups: list[Group], context: Context) -> Edit:
        """Run the editors in order; the largest wish for more prompts wins."""
        wanted = 0
        for stage in self.edit:
            edited = stage(groups, context)
            groups, wanted = edited.groups, max(wanted, edited.wanted)
        return Edit(groups, wanted)

    def train_samples(self, groups: list[Group], context: Context) -> list[TrainSample]:
        """Give every token its advantage, then refine; say which responses are of older weights.

        Old log-probs are those of whatever sampled; `mmrl.train.old_logprobs` says which count.
        Branches of an episode come right after it, with what its own tokens have on average.
        """
        samples = self.credit(groups, context)
        for stage in self.refine:
            samples = stage(samples, context)
        return [
            replace(each, older=each.older or each.response.staleness(context.step) > 0)
            for sample in samples
            for each in (sample, *_branches(sample))
        ]

    def _penalised(self, group: Group, kl: KL, context: Context) -> Group:
        """Take the KL off the response's reward, or leave it per token to the credit stage."""
        coefficient = kl.at(context)
        reference = needed(group.extra.reference, "reference")
        penalties = [
            coefficient * np.where(_sampled(response), kl.estimate(response.logprobs, ref), 0.0)
            for response, ref in zip(group.responses, reference, strict=True)
        ]
        if kl.placement == "token-reward":
            return replace(group, extra=replace(group.extra, penalties=penalties))
        return with_rewards(group, group.rewards - np.array([p.sum() for p in penalties]))


def _branches(sample: TrainSample) -> Iterator[TrainSample]:
    """The parts of a sample's episode that have prompts of their own."""
    for prompt, response in sample.response.branches if sample.sampled else ():

        def known(values: Floats, size: int = len(response.ids)) -> Floats:
            own = values[sample.response.written]
            return np.full(size, own.mean() if len(own) else 0.0)

        def spread(values: Floats | None) -> Floats | None:
            return None if values is None else known(values)

        yield replace(
            sample,
            prompt=prompt,
            response=response,
            advantages=known(sample.advantages),
            mask=response.written & bool(sample.mask.any()),
            old_logprobs=response.logprobs,
            ref_logprobs=None,
            returns=spread(sample.returns),
            values=spread(sample.values),
            second=spread(sample.second),
            correction=None,
            branch=True,
        )


def _sampled(response: Response) -> Bools:
    """True for the tokens [T] that the model wrote, as far as it was a model that wrote them."""
    return response.written & np.isfinite(response.logprobs)


def _nested_needs(stage: object) -> Iterator[frozenset[Need]]:
    """The needs of a stage, and of the stages among its options."""
    if isinstance(stage, Stage):
        yield stage.needs
    if is_dataclass(stage):
        for option in fields(stage):
            yield from _nested_needs(getattr(stage, option.name))
