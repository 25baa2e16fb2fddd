"""Credit with a critic: generalised advantage estimates of every token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from mmrl.algorithms.stages.credit import (
    gae,
    outcomes,
    over_written,
    pair,
    scorable,
    token_rewards,
    whitened,
)
from mmrl.stage import Context, Need, Stage, needed
from mmrl.types import Floats, Group, Response, TrainSample

Lambda = Callable[[int], float]
"""Lambda of a response from its length in tokens."""


@dataclass(frozen=True)
class Constant:
    """The same lambda for every response."""

    value: float

    def __call__(self, length: int) -> float:
        return self.value


@dataclass(frozen=True)
class LengthAdaptive:
    """lambda = 1 - 1 / (alpha x length), within [0, 1]. VAPO, arXiv 2504.05118."""

    alpha: float = 0.05

    def __call__(self, length: int) -> float:
        return max(0.0, 1 - 1 / (self.alpha * length)) if length else 0.0


@dataclass(frozen=True)
class WithCritic(Stage):
    """GAE over a response's tokens, its reward at the last one, minus its KL penalties.

    A truncated response is worth its last value if `bootstrap`, else nothing, after its end.
    Right answers are marked for objectives that imitate them. `critic_lam` is the lambda of the
    critic's targets.
    """

    gamma: float
    lam: Lambda
    critic_lam: float
    bootstrap: bool = False
    whiten: bool = True
    part: str | None = None

    needs: ClassVar[frozenset[Need]] = frozenset({"values"})
    spends_penalties: ClassVar[bool] = True

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        samples = [s for i, group in enumerate(groups) for s in self._samples(group, i)]
        return whitened(samples, 1, 1e-8) if self.whiten else samples

    def _samples(self, group: Group, index: int) -> list[TrainSample]:
        """Pair responses with advantages and targets; unscorable ones teach the critic nothing."""
        return [
            replace(
                sample,
                positive=bool(right > 0),
                returns=target if known else None,
                values=values if known else None,
            )
            for sample, right, known, target, values in zip(
                pair(group, self.estimates(group), index),
                outcomes(group, self.part),
                scorable(group.rewards),
                self.targets(group),
                needed(group.extra.values, "values"),
                strict=True,
            )
        ]

    def estimates(self, group: Group) -> list[Floats]:
        """Advantages [T] of every response; what an environment told is passed over."""

        def estimate(response: Response, rewards: Floats, values: Floats) -> Floats:
            last = self.bootstrap and response.truncated and len(values)
            after = float(values[-1]) if last else 0.0
            return gae(rewards, values, self.gamma, self.lam(len(values)), after)

        return self._each(group, estimate)

    def targets(self, group: Group) -> list[Floats]:
        """What the critic learns [T] from every response."""

        def target(response: Response, rewards: Floats, values: Floats) -> Floats:
            return value_targets(rewards, values, self.gamma, self.critic_lam)

        return self._each(group, target)

    def _each(
        self, group: Group, estimate: Callable[[Response, Floats, Floats], Floats]
    ) -> list[Floats]:
        return [
            over_written(response, partial(estimate, response), rewards, values)
            for response, rewards, values in zip(
                group.responses,
                token_rewards(group),
                needed(group.extra.values, "values"),
                strict=True,
            )
        ]


def value_targets(rewards: Floats, values: Floats, gamma: float, lam: float) -> Floats:
    """What a critic learns [T]: advantages plus values; at lambda 1 the plain returns."""
    return np.asarray(gae(rewards, values, gamma, lam) + values)
