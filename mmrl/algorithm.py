"""What an algorithm is: a frozen choice of stages. It knows neither torch nor the model.

    expand   Sample -> variants of it
    plan     prompts -> how many responses each
    shape    groups -> groups with shaped rewards (sees the whole group)
    edit     groups -> groups kept, dropped, pruned, replayed; may ask for more prompts
    credit   groups -> train samples with per-token advantages
    prune    train samples -> fewer train samples
    objective, reducer, kl, updates: named choices that `mmrl.losses` and the trainer carry out

A module in `mmrl.algorithms` exposes `Params` (a config section) and `build(params) -> Algorithm`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mmrl.types import Group, Prompt, Sample, TrainSample

KLEstimator = Literal["k1", "k2", "k3"]
Aggregation = Literal["seq-mean-token-mean", "token-mean", "seq-mean-token-sum", "constant"]
Signal = Literal["ref_logprobs", "entropy"]


@dataclass(frozen=True)
class Context:
    """What every stage may use: where the run is, a generator of its own, persistent state.

    `state` is plain JSON data that belongs to the algorithm; checkpoints carry it. `rng` is
    derived from (seed, step), so a resumed run draws the same numbers.
    """

    step: int
    total_steps: int
    prompts_per_step: int
    rng: np.random.Generator
    state: dict[str, Any]


@dataclass(frozen=True)
class Edit:
    """Groups an editor keeps, and how many more prompts it wants rolled out (0: enough)."""

    groups: list[Group]
    wanted: int = 0


Expand = Callable[[Sample, Context], Sequence[Sample]]
Plan = Callable[[Sequence[Prompt], Context], Sequence[int]]
Shape = Callable[[list[Group], Context], list[Group]]
EditStage = Callable[[list[Group], Context], Edit]
Credit = Callable[[list[Group], Context], list[TrainSample]]
Prune = Callable[[list[TrainSample], Context], list[TrainSample]]


@dataclass(frozen=True)
class Objective:
    """A policy objective by name (a function in `mmrl.losses.OBJECTIVES`) with its options."""

    name: str = "clipped"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reducer:
    """How token losses become one number; `constant` divides by (sequences x `length`)."""

    name: Aggregation = "seq-mean-token-mean"
    length: float | None = None


@dataclass(frozen=True)
class KL:
    """Penalty towards the reference policy: estimator x placement x schedule.

    `coefficient` is a number or a function of (step, total steps). `straight_through` gives the
    estimator's value with the gradient of k2. The reference is loaded only where this exists.
    """

    coefficient: float | Callable[[int, int], float]
    estimator: KLEstimator = "k3"
    placement: Literal["loss", "reward"] = "loss"
    straight_through: bool = False

    def at(self, step: int, total_steps: int) -> float:
        """Return the coefficient of a step."""
        if callable(self.coefficient):
            return self.coefficient(step, total_steps)
        return self.coefficient


@dataclass(frozen=True)
class Updates:
    """How often a batch is trained on: `passes` over it, each in `mini_batches` optimiser steps."""

    passes: int = 1
    mini_batches: int = 1

    @property
    def on_policy(self) -> bool:
        """True if the policy never moves between sampling and the (only) update."""
        return self.passes == 1 and self.mini_batches == 1


def one_variant(sample: Sample, context: Context) -> Sequence[Sample]:
    """Ask each sample as it is."""
    return (sample,)


@dataclass(frozen=True)
class Algorithm:
    """The stages of one algorithm, in the order the trainer runs them."""

    name: str
    plan: Plan
    credit: Credit
    objective: Objective = Objective()
    reducer: Reducer = Reducer()
    kl: KL | None = None
    updates: Updates = Updates()
    expand: Expand = one_variant
    shape: tuple[Shape, ...] = ()
    edit: tuple[EditStage, ...] = ()
    prune: tuple[Prune, ...] = ()
    needs: frozenset[Signal] = frozenset()

    def edit_groups(self, groups: list[Group], context: Context) -> Edit:
        """Run the editors in order; the largest wish for more prompts wins."""
        wanted = 0
        for stage in self.edit:
            edited = stage(groups, context)
            groups, wanted = edited.groups, max(wanted, edited.wanted)
        return Edit(groups, wanted)

    def shape_rewards(self, groups: list[Group], context: Context) -> list[Group]:
        """Run the group-level reward shapers in order."""
        for stage in self.shape:
            groups = stage(groups, context)
        return groups

    def train_samples(self, groups: list[Group], context: Context) -> list[TrainSample]:
        """Give every token its advantage, then prune."""
        samples = self.credit(groups, context)
        for stage in self.prune:
            samples = stage(samples, context)
        return samples
