"""What a stage of an algorithm is: what it is given, what it may use, what it may need.

A stage with options is a frozen dataclass; stages without may be plain functions. None knows torch
or the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np

from mmrl.errors import UserError
from mmrl.types import Floats, Group, Prompt, Response, Sample, TrainSample

T = TypeVar("T")
Need = Literal[
    "reference",
    "entropy",
    "self_certainty",
    "indecision",
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
    "collision",
    "implied",
    "mismatched",
    "aided",
    "probes",
    "value_estimates",
]

NEEDS: Mapping[Need, str] = {
    "reference": "log-probs of a frozen reference policy",
    "entropy": "the policy's entropy at every sampled token",
    "self_certainty": "the policy's self-certainty at every sampled token",
    "indecision": "how near the policy's two likeliest tokens were, at every sampled token",
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
    "collision": "the policy's collision probability at every sampled token",
    "implied": "log(policy / reference) of every response before the step's updates",
    "mismatched": "log(policy / reference) of a response to another prompt",
    "aided": "the policy's log-prob of every response where the prompt ends with an aid",
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


def _not_written(sample: Sample, text: str) -> tuple[Prompt, Response] | None:
    raise UserError("this run cannot write completions to questions of the algorithm's own")


def _no_change(sample: Sample, options: Mapping[str, Any]) -> Sample | None:
    raise UserError("this run cannot change the pictures of a sample")


@dataclass(frozen=True)
class Context:
    """What every stage may use: where the run is, a generator of its own, persistent state.

    `prompts_per_step` is what the step starts with, `prompt_factor` counted in. `state` is plain
    JSON data that belongs to the algorithm; checkpoints carry it. `rng` is derived from (seed,
    step), so a resumed run draws the same numbers. `recall` encodes the prompt of an earlier
    sample again, by its id. `change` asks a sample with options set on its pictures: None where its
    gold is not known then, UserError where the task never knows it. `write` encodes a question of
    the algorithm's own with a completion that nobody sampled; None where it cannot be shown, which
    is noted in the run's quarantine. `step` and `total_steps` are those of the phase, from 1;
    `epoch` is that of the source a sampler is asked about, from 0.
    """

    step: int
    total_steps: int
    prompts_per_step: int
    rng: np.random.Generator
    state: dict[str, Any]
    recall: Callable[[str], Prompt] = _unknown_prompt
    change: Callable[[Sample, Mapping[str, Any]], Sample | None] = _no_change
    write: Callable[[Sample, str], tuple[Prompt, Response] | None] = _not_written
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


class Stage:
    """What a stage with options declares; stages without needs may be plain functions.

    `spends_penalties`: a credit stage that takes the KL off the rewards of single tokens. `gives`:
    what a credit stage says besides advantages (`TrainSample.second`).
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    spends_penalties: ClassVar[bool] = False
    gives: ClassVar[str] = ""

    def learnt(self, divergence: float, context: Context) -> None:
        """Take in how far a step's updates moved the policy, where the update plan measures it.

        `divergence` is the largest KL(old policy || policy) of a trained token, in nats.
        """


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


def needed(value: T | None, need: Need) -> T:
    """Return what a group carries in its `extra`; raise UserError where it is not there."""
    if value is None:
        raise UserError(f"the algorithm needs {NEEDS[need]}, which this run does not provide")
    return value


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
