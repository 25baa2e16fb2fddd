"""What an algorithm is: a frozen choice of stages. It knows neither torch nor the model.

    sampler  which prompts are asked next, from what was observed
    expand   Sample -> variants of it
    plan     prompts -> how many responses each
    shape    groups -> groups with shaped rewards (sees the whole group)
    edit     groups -> groups kept, dropped, replayed; may ask for more prompts
    credit   groups -> train samples with per-token advantages
    refine   train samples -> reweighted, masked or fewer train samples
    objective, reducer, kl, updates: options that `mmrl.train.losses` and the learner carry out

A stage with options is a frozen dataclass, so an algorithm prints as the numbers it is made of. A
module in `mmrl.algorithms` exposes `SUMMARY`, `PAPER`, `Params` (a config section) and
`build(params) -> Algorithm`; `mmrl.algorithms.compose` replaces single stages from a config. It may
say with `unused(params)` which common options it has no use for, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field

from mmrl.errors import UserError
from mmrl.types import Bools, Floats, Group, Prompt, Sample, TrainSample

KLEstimator = Literal["k1", "k2", "k3"]
KLPlacement = Literal["loss", "reward", "token-reward"]
Aggregation = Literal[
    "seq-mean-token-mean", "token-mean", "seq-mean-token-sum", "constant", "group-mean"
]
Need = Literal[
    "reference",
    "entropy",
    "self_certainty",
    "values",
    "greedy",
    "turns",
    "states",
    "steps",
    "offsets",
    "key_steps",
    "variants",
    "answers",
    "pass_rates",
    "gradient_norms",
    "probes",
    "value_estimates",
]

NEEDS: Mapping[Need, str] = {
    "reference": "log-probs of a frozen reference policy",
    "entropy": "the policy's entropy at every sampled token",
    "self_certainty": "the policy's self-certainty at every sampled token",
    "values": "a critic's value of every sampled token",
    "greedy": "the reward of a greedy answer to every prompt",
    "turns": "episodes of several turns, with the token span and reward of each",
    "steps": "the token spans of a response's steps, with the value of each",
    "offsets": "where every token stands in the text of its response",
    "states": "an anchor state for every turn",
    "key_steps": "key steps in every record (`key_steps` in its meta)",
    "variants": "several variants of every prompt (`rewrites` in its meta)",
    "answers": "the final answer of every response",
    "pass_rates": "a pass rate in every record (`pass_rate` in its meta)",
    "gradient_norms": "the norm of the LM head's gradient of every response",
    "probes": "an earlier phase `gvm_probe` over the same records",
    "value_estimates": "an earlier phase `value_estimates` over the same records",
}
"""What an algorithm may need beyond rewards and sampled log-probs."""

FROM_DATA: frozenset[Need] = frozenset(
    {
        "key_steps",
        "variants",
        "pass_rates",
        "answers",
        "value_estimates",
        "probes",
        "turns",
        "states",
    }
)
"""Needs that records, responses or earlier phases meet; a sample without raises UserError."""

ESTIMATED_BY: Mapping[Need, str] = {"value_estimates": "value_estimates", "probes": "gvm_probe"}
"""Which algorithm, as an earlier phase, estimates what another one needs."""


def _unknown_prompt(sample_id: str) -> Prompt:
    raise UserError(f"this run cannot bring back the prompt of sample '{sample_id}' for replay")


def _no_change(sample: Sample, options: Mapping[str, Any]) -> Sample:
    raise UserError("this run cannot change the pictures of a sample")


@dataclass(frozen=True)
class Context:
    """What every stage may use: where the run is, a generator of its own, persistent state.

    `prompts_per_step` is what the step starts with, `prompt_factor` counted in. `state` is plain
    JSON data that belongs to the algorithm; checkpoints carry it. `rng` is derived from (seed,
    step), so a resumed run draws the same numbers. `recall` encodes the prompt of an earlier
    sample again, by its id. `change` asks a sample with options set on its pictures; it raises
    UserError where the task does not know its gold then. `step` and `total_steps` are those of the
    phase, from 1; `epoch` is that of the source a sampler is asked about, from 0.
    """

    step: int
    total_steps: int
    prompts_per_step: int
    rng: np.random.Generator
    state: dict[str, Any]
    recall: Callable[[str], Prompt] = _unknown_prompt
    change: Callable[[Sample, Mapping[str, Any]], Sample] = _no_change
    epoch: int = 0


@dataclass(frozen=True)
class Edit:
    """Groups an editor keeps, and how many more prompts it wants rolled out (0: enough)."""

    groups: list[Group]
    wanted: int = 0


Expand = Callable[[Sample, Context], Sequence[Sample]]
Plan = Callable[[Sequence[Prompt], Context], Sequence[int]]
Length = Callable[[Context], int]
Shape = Callable[[list[Group], Context], list[Group]]
EditStage = Callable[[list[Group], Context], Edit]
Credit = Callable[[list[Group], Context], list[TrainSample]]
Refine = Callable[[list[TrainSample], Context], list[TrainSample]]
TokenFilter = Callable[[TrainSample], Bools]


class Stage:
    """What a stage with options declares; stages without needs may be plain functions.

    `spends_penalties`: a credit stage that takes the KL off the rewards of single tokens.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    spends_penalties: ClassVar[bool] = False


class Objective(Stage):
    """A policy objective: the options of a function in `mmrl.train.losses`.

    `whole_groups`: every micro-batch must hold whole groups. `reducer`: the only one that makes
    sense for it. `centred`: it reads rewards off advantages that are centred and nothing else.
    `on_policy`: it holds for responses of the policy that trains only, with nothing in it that
    makes up for older weights.
    """

    whole_groups: ClassVar[bool] = False
    centred: ClassVar[bool] = False
    on_policy: ClassVar[bool] = False
    reducer: ClassVar[Aggregation | None] = None


class Sampler(Protocol):
    """Chooses prompts from what was observed; all it remembers is JSON in `context.state`."""

    def mix(self, shares: Mapping[str, float], context: Context) -> Mapping[str, float]:
        """Return the share of each source (by its key) in the next draws."""
        return shares

    def stage(self, context: Context) -> int:
        """Return the number of the step's stage; where it changes, every source begins an epoch."""
        return 0

    def epoch(self, samples: Sequence[Sample], context: Context) -> Sequence[int] | None:
        """Return which samples of a source to ask in its next epoch, in order; None: all, as usual.

        `context.epoch` is its number. An empty sequence means that nothing is left to learn. What
        was drawn and not yet observed, such as this step's own samples, is not in the state.
        """
        return None

    def observe(
        self, groups: Sequence[Group], samples: Sequence[TrainSample], context: Context
    ) -> None:
        """Take in a step's scored groups (before editing) and the train samples made of them."""
        return None


@dataclass(frozen=True)
class Choosing:
    """A sampler at one step of a run, as a prompt stream asks it."""

    sampler: Sampler
    context: Context

    def mix(self, shares: Mapping[str, float]) -> Mapping[str, float]:
        """Return the share of each source in the next draws."""
        return self.sampler.mix(shares, self.context)

    def stage(self) -> int:
        """Return the number of the step's stage."""
        return self.sampler.stage(self.context)

    def epoch(
        self, samples: Sequence[Sample], number: int, rng: np.random.Generator
    ) -> Sequence[int] | None:
        """Return the order of a source's epoch `number`; `rng` is the stream's own."""
        return self.sampler.epoch(samples, replace(self.context, epoch=number, rng=rng))


@dataclass(frozen=True)
class Reducer:
    """How token losses become one number.

    `constant` divides by (sequences x `length`); `group-mean` is the mean over groups of what is
    one value within a group. The first `lead_tokens` tokens are reduced apart and added with
    `lead_weight` (DeGRPO's control token).
    """

    name: Aggregation = "seq-mean-token-mean"
    length: float | None = None
    lead_tokens: int = 0
    lead_weight: float = 1.0


class Schedule(Protocol):
    """A KL coefficient that changes during the run."""

    def at(self, context: Context) -> float:
        """Return the coefficient of this step."""
        ...

    def observe(self, kl: float, responses: int, context: Context) -> None:
        """Take in the KL measured in this step, and over how many responses."""
        ...


@dataclass(frozen=True)
class KL:
    """Penalty towards the reference policy: estimator x placement x schedule.

    Placement: in the loss; subtracted from the response's reward; or from its tokens' rewards,
    for a credit stage that spends them. `straight_through` gives the estimator's value with the
    gradient of k2. `clamp` bounds the log-ratio. The reference is loaded only where this exists.
    """

    coefficient: float = 0.0
    estimator: KLEstimator = "k3"
    placement: KLPlacement = "loss"
    straight_through: bool = False
    clamp: float | None = None
    schedule: Schedule | None = None

    def at(self, context: Context) -> float:
        """Return the coefficient of a step."""
        return self.coefficient if self.schedule is None else self.schedule.at(context)

    def observe(self, kl: float, responses: int, context: Context) -> None:
        """Let an adaptive schedule react to the KL of a step."""
        if self.schedule is not None:
            self.schedule.observe(kl, responses, context)

    def estimate(self, logprobs: Floats, ref: Floats) -> Floats:
        """Estimate the KL of every token [T] from samples of the policy (see `losses`).

        Args:
            logprobs: of the policy that sampled [T], in nats.
            ref: of the reference, of the same tokens [T].

        Returns:
            One estimate a token [T], in nats; k1 may be negative.
        """
        difference = logprobs - ref
        if self.clamp is not None:
            difference = np.clip(difference, -self.clamp, self.clamp)
        match self.estimator:
            case "k1":
                return difference
            case "k2":
                return np.asarray(difference**2 / 2)
            case "k3":
                return np.asarray(np.expm1(-difference) + difference)


@dataclass(frozen=True)
class Updates:
    """How often a batch is trained on: `passes` over it, each in `mini_batches` optimiser steps.

    Pass p trains on the tokens that filter p (modulo their number) selects; no filter: on all.
    In the first `critic_steps` steps of a phase the critic learns alone; None: as many as
    `new_critic_steps`, but at most half of the phase, and none if the critic has learnt before.
    """

    passes: int = 1
    mini_batches: int = 1
    filters: tuple[TokenFilter, ...] = ()
    critic_steps: Annotated[int, Field(ge=0)] | None = None
    new_critic_steps: Annotated[int, Field(ge=0)] = 0

    @property
    def planned(self) -> int:
        """Optimiser steps of a batch with at least one group for every mini-batch."""
        return self.passes * self.mini_batches

    @property
    def on_policy(self) -> bool:
        """True if the policy never moves between sampling and the (only) update."""
        return self.planned == 1

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
class Cuts:
    """Thinking that is cut at budgets (in tokens, ascending), with `answers` answers at every cut.

    Thinking ends with `marker`; where it is cut, `closing` is put in its place.
    """

    budgets: tuple[int, ...]
    answers: int = 4
    marker: str = "</think>"
    closing: str = "\n</think>\n"


def one_variant(sample: Sample, context: Context) -> Sequence[Sample]:
    """Ask each sample as it is."""
    return (sample,)


@dataclass(frozen=True)
class Algorithm:
    """The stages of one algorithm, in the order the trainer runs them.

    `length` is the longest response of a step (None: the run's own setting); `cuts` asks for
    answers at budgets of thinking; `prompt_factor` multiplies the prompts of a step.
    `always_on_policy` forbids several updates on a batch. `notes` is what a run says of how it was
    composed, a line each.
    """

    name: str
    plan: Plan
    credit: Credit
    objective: Objective
    reducer: Reducer = Reducer()
    kl: KL | None = None
    updates: Updates = Updates()
    sampler: Sampler | None = None
    expand: Expand = one_variant
    length: Length | None = None
    cuts: Cuts | None = None
    prompt_factor: float = 1.0
    shape: tuple[Shape, ...] = ()
    edit: tuple[EditStage, ...] = ()
    refine: tuple[Refine, ...] = ()
    always_on_policy: bool = False
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
        """
        samples = self.credit(groups, context)
        for stage in self.refine:
            samples = stage(samples, context)
        return [
            replace(s, older=s.older or s.response.staleness(context.step) > 0) for s in samples
        ]

    def _penalised(self, group: Group, kl: KL, context: Context) -> Group:
        """Take the KL off the response's reward, or leave it per token to the credit stage."""
        coefficient = kl.at(context)
        penalties = [
            coefficient * np.where(response.written, kl.estimate(response.logprobs, ref), 0.0)
            for response, ref in zip(group.responses, carried(group, "reference"), strict=True)
        ]
        if kl.placement == "token-reward":
            return replace(group, extra={**group.extra, "penalties": penalties})
        return with_rewards(group, group.rewards - np.array([p.sum() for p in penalties]))


def _nested_needs(stage: object) -> Iterator[frozenset[Need]]:
    """The needs of a stage, and of the stages among its options."""
    if isinstance(stage, Stage):
        yield stage.needs
    if is_dataclass(stage):
        for option in fields(stage):
            yield from _nested_needs(getattr(stage, option.name))


def carried(group: Group, need: Need) -> Any:
    """Return what the group carries of `need`: per response in order, or one value.

    Raises UserError where the run did not provide it.

    Args:
        group: a scored group.
        need: one of those that the stage names in `needs`.

    Returns:
        Arrays [T] for every response, or one value of the group, by the need.
    """
    if need not in group.extra:
        raise UserError(f"the algorithm needs {NEEDS[need]}, which this run does not provide")
    return group.extra[need]


def with_rewards(group: Group, rewards: Floats) -> Group:
    """Replace the rewards [G]; unscorable answers stay unscorable.

    Args:
        group: a scored group.
        rewards: a number for every response [G]; those of unscorable answers are not read.

    Returns:
        The group with these rewards; metrics and parts stay as they are.

    Example:
        `with_rewards(group, group.rewards - 0.1 * lengths)` in a shape stage
    """
    scores = tuple(
        replace(score, reward=None if score.reward is None else float(reward))
        for score, reward in zip(group.scores, rewards, strict=True)
    )
    return replace(group, scores=scores)
