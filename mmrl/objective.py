"""What an objective is, and the rest of a loss: the tokens it is of, its reducer, its KL.

A batch of response tokens is flat: every tensor is [M] over the tokens of all sequences, with
`sequence` [M] naming each token's sequence. An objective returns one loss a token; a reducer's
weights, counted over the whole optimiser step, turn them into one number. Micro-batching and
packing therefore never move the gradient. What is one value for a sequence or a group is
repeated on its tokens.

Algorithms name objectives with their options and must not bring torch along, so what is computed
here, and in `mmrl.objectives`, is written with the methods of the tensors that it is given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

from mmrl.stage import Context, Stage
from mmrl.types import Floats

if TYPE_CHECKING:
    from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3"]
KLPlacement = Literal["loss", "reward", "token-reward"]
Aggregation = Literal[
    "seq-mean-token-mean", "token-mean", "seq-mean-token-sum", "constant", "group-mean"
]
Values = TypeVar("Values", Floats, "Tensor")
"""Log-probs as arrays, or as tensors with their gradient."""


@dataclass(frozen=True)
class TokenBatch:
    """Aligned response tokens [M]: constants of the loss, and `logprobs` with its gradient.

    `old` is that of the policy itself where no other is known, for a ratio of 1. `weights` are the
    reducer's and are 0 where a token is masked. `sequence` [M] and `group` [M] count from 0 within
    the batch. `positive` [M] marks the tokens of positive samples, `positive_share` their share of
    the whole step's trained tokens. `correction` [M] are weights of the policy's losses. `second`
    [M] is what an objective reads besides advantages (`Objective.reads` says what).
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
    second: Tensor | None = None

    @property
    def log_ratio(self) -> Tensor:
        """log(policy / old policy) [M]; on-policy its value is 0, its gradient that of log-prob."""
        return self.logprobs - self.old

    @property
    def reference(self) -> Tensor:
        """Reference log-probs [M], which must be there."""
        assert self.ref is not None, "this loss needs reference log-probs"
        return self.ref

    @property
    def beside(self) -> Tensor:
        """What the objective reads besides advantages [M], which must be there."""
        assert self.second is not None, "this loss reads more than advantages"
        return self.second

    def sequence_sum(self, values: Tensor) -> Tensor:
        """Sum token values [M] over the unmasked tokens of each sequence [sequences]."""
        kept = values.where(self.mask, 0.0)
        return kept.new_zeros(self.num_sequences).index_add(0, self.sequence, kept)

    def sequence_mean(self, values: Tensor) -> Tensor:
        """Mean over the unmasked tokens of each sequence [sequences]; 0 where there are none."""
        return self.sequence_sum(values) / self.lengths.clamp(min=1)

    def sequence_value(self, values: Tensor) -> Tensor:
        """The value that all unmasked tokens of each sequence share [sequences]; 0 without any.

        It is not rounded, as a mean over ragged lengths is.
        """
        lowest = float("-inf")
        found = values.new_full((self.num_sequences,), lowest)
        found = found.scatter_reduce(0, self.sequence, values.where(self.mask, lowest), "amax")
        return found.where(found > lowest, 0.0)

    @property
    def lengths(self) -> Tensor:
        """Unmasked tokens of each sequence [sequences]."""
        return self.sequence_sum(self.logprobs.new_ones(len(self.logprobs)))

    @property
    def sequence_advantages(self) -> Tensor:
        """The advantage of each sequence [sequences], where all of its tokens share one."""
        return self.sequence_mean(self.advantages)

    def members(self) -> list[Tensor]:
        """Indices of the sequences of each group that have an unmasked token, group by group."""
        owner = self.group.new_full((self.num_sequences,), -1)
        owner[self.sequence[self.mask]] = self.group[self.mask]
        return [(owner == g).nonzero()[:, 0] for g in range(self.num_groups)]

    def spread_groups(self, losses: Sequence[Tensor]) -> Tensor:
        """Repeat one loss a group on all of the group's tokens [M]."""
        each = self.logprobs.new_zeros(self.num_groups)
        for group, loss in enumerate(losses):
            each[group] = loss
        return each[self.group]


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


@dataclass(frozen=True)
class Objective(Stage, ABC):
    """A policy objective: its options are the fields of a frozen dataclass, its loss a method.

    It reads advantages [M] of tokens and nothing about rewards. Where a method is defined on
    rewards, pairs or labels, a credit stage puts those into the advantages, and the objective says
    how it reads them.

    `paper`: where it comes from. `whole_groups`: every micro-batch must hold whole groups.
    `reducer`: the only one that makes sense for it. `centred`: it reads rewards off advantages that
    are centred and nothing else. `on_policy`: it holds for responses of the policy that trains
    only, with nothing in it that makes up for older weights. `clips_ratio`: its options `low` and
    `high` are bounds of the ratio itself; elsewhere they say how far it may be from 1. `reads`:
    what it needs besides advantages, which a credit stage must give.
    """

    paper: ClassVar[str] = ""
    whole_groups: ClassVar[bool] = False
    centred: ClassVar[bool] = False
    on_policy: ClassVar[bool] = False
    clips_ratio: ClassVar[bool] = False
    reads: ClassVar[str] = ""
    reducer: ClassVar[Aggregation | None] = None

    @abstractmethod
    def losses(self, batch: TokenBatch) -> Tensor:
        """Return the loss of every token [M]; what stands at masked ones does not matter."""

    def bounds(self, batch: TokenBatch) -> Bounds:
        """Return what its bounds did to every token [M]; `train/clip_share` counts it."""
        return Bounds()

    def reasons(self, reducer: Reducer) -> Iterator[str]:
        """Say why its options do not go with a reducer; nothing where they do."""
        yield from ()


@runtime_checkable
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

    def estimate(self, logprobs: Values, ref: Values) -> Values:
        """Estimate the KL of every token from samples of the policy, with its plain gradient.

        Args:
            logprobs: of the policy that sampled [T], in nats.
            ref: of the reference, of the same tokens [T].

        Returns:
            One estimate a token [T], in nats; k1 may be negative.
        """
        difference = logprobs - ref
        if self.clamp is not None:
            difference = difference.clip(-self.clamp, self.clamp)
        return kl_estimate(difference, self.estimator)

    def penalty(self, batch: TokenBatch) -> Tensor:
        """Return the KL of each token [M] with the gradient it has in a loss."""
        value = self.estimate(batch.logprobs, batch.reference)
        if not self.straight_through:
            return value
        slope = replace(self, estimator="k2").estimate(batch.logprobs, batch.reference)
        return slope + (value - slope).detach()


def kl_estimate(difference: Values, estimator: KLEstimator) -> Values:
    """Estimate KL(policy || reference) of every token from samples of the policy.

    k1 = d, k2 = d^2 / 2, k3 = exp(-d) + d - 1 with d = log-prob - reference log-prob
    (Schulman, "Approximating KL divergence", 2020).
    """
    match estimator:
        case "k1":
            return difference
        case "k2":
            return difference**2 / 2
        case "k3":
            estimate: Values = _expm1(-difference) + difference
            return estimate


def _expm1(values: Any) -> Any:
    """exp(values) - 1, which arrays have as a function and tensors as a method."""
    return np.expm1(values) if isinstance(values, np.ndarray) else values.expm1()
