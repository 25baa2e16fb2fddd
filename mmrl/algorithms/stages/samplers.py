"""Prompt samplers: which source, and which of its samples, from what was observed.

What a sampler remembers is JSON in `context.state`, keyed by source or by sample id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mmrl import plugins
from mmrl.algorithms.stages.credit import outcomes, scorable
from mmrl.errors import UserError
from mmrl.stage import Context, Need, Sampler, Stage
from mmrl.types import Floats, Group, Sample, TrainSample


@dataclass(frozen=True)
class UpperConfidence(Stage, Sampler):
    """Prefer sources whose advantages are large, and those seldom asked. DUMP, arXiv 2504.09710.

    The released code takes mean rewards at validation instead of training advantages.
    """

    window: int = 300
    temperature: float = 0.1

    def mix(self, shares: Mapping[str, float], context: Context) -> Mapping[str, float]:
        """Softmax of the upper confidence bounds; shares of the config do not count."""
        seen = context.state.get("sources", {})
        rows = [seen.get(source, {"window": [], "count": 0}) for source in shares]
        means = [float(np.mean(row["window"])) if row["window"] else 0.0 for row in rows]
        bounds = upper_bounds(np.array(means), np.array([float(row["count"]) for row in rows]))
        chances = probabilities(bounds, self.temperature)
        return dict(zip(shares, chances.tolist(), strict=True))

    def observe(
        self, groups: Sequence[Group], samples: Sequence[TrainSample], context: Context
    ) -> None:
        """Append the size of every response's advantage to its source's window."""
        sources = context.state.setdefault("sources", {})
        for sample in samples:
            row = sources.setdefault(sample.prompt.sample.task, {"window": [], "count": 0})
            size = float(np.abs(sample.advantages).mean()) if len(sample.advantages) else 0.0
            row["window"] = [*row["window"], size][-self.window :]
            row["count"] += 1


def upper_bounds(means: Floats, counts: Floats) -> Floats:
    """Mean plus sqrt(2 ln(N + 1) / (n + 1)) of every arm [A]."""
    return np.asarray(means + np.sqrt(2 * np.log(counts.sum() + 1) / (counts + 1)))


def probabilities(bounds: Floats, temperature: float) -> Floats:
    """Softmax of the bounds [A] over the temperature."""
    powers = np.exp((bounds - bounds.max()) / temperature)
    return np.asarray(powers / powers.sum())


@dataclass(frozen=True)
class DropSolved(Stage, Sampler):
    """After each epoch, leave out the samples that every response got right.

    SRPO's history resampling, arXiv 2504.14286: all-wrong samples stay, they may become learnable.
    """

    part: str | None = None

    def epoch(self, samples: Sequence[Sample], context: Context) -> Sequence[int] | None:
        """Samples without a perfect record, in their order, shuffled."""
        rates = context.state.get("rates", {})
        kept = unsolved([rates.get(sample.id, 0.0) for sample in samples])
        return [kept[int(i)] for i in context.rng.permutation(len(kept))]

    def observe(
        self, groups: Sequence[Group], samples: Sequence[TrainSample], context: Context
    ) -> None:
        """Record the last accuracy of every sample."""
        rates = context.state.setdefault("rates", {})
        for group in groups:
            values = outcomes(group, self.part)
            if scorable(values).any():
                rates[group.prompt.sample.id] = float(values[scorable(values)].mean())


def unsolved(rates: Sequence[float]) -> list[int]:
    """Indices of the samples that are not always right."""
    return [i for i, rate in enumerate(rates) if rate < 1]


@dataclass(frozen=True)
class EasyToHard(Stage, Sampler):
    """Ask samples in decreasing pass rate of the base model, ties in their order.

    SARI, arXiv 2504.15900 (a variant: its difficulty measure and pacing are not published).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"pass_rates"})

    def epoch(self, samples: Sequence[Sample], context: Context) -> Sequence[int] | None:
        """Easiest first; a sample without a pass rate raises UserError."""
        return easy_to_hard([self._rate(sample) for sample in samples])

    def _rate(self, sample: Sample) -> float:
        if "pass_rate" not in sample.meta:
            raise UserError(f"sample '{sample.id}' has no `pass_rate` in its meta")
        return float(sample.meta["pass_rate"])


def easy_to_hard(rates: Sequence[float]) -> list[int]:
    """Indices in decreasing pass rate, ties in order."""
    return [int(i) for i in np.argsort(-np.asarray(rates), kind="stable")]


@dataclass(frozen=True)
class HardStage(Stage, Sampler):
    """After `first_steps` steps, ask only the samples that did not earn everything in them.

    Reward-based curriculum sampling, arXiv 2504.13592. `full` is the most one response can earn.
    The second stage begins with step `first_steps` + 1, wherever the sources' epochs are then.
    """

    first_steps: int = 60
    full: float = 2.0

    def stage(self, context: Context) -> int:
        """0 for the first steps, then 1."""
        return int(context.step > self.first_steps)

    def epoch(self, samples: Sequence[Sample], context: Context) -> Sequence[int] | None:
        """All samples in the first stage; then those under full marks, or never asked."""
        if not self.stage(context):
            return None
        means = context.state.get("mean_rewards", {})
        kept = under_full([means.get(s.id, -np.inf) for s in samples], self.full)
        return [kept[int(i)] for i in context.rng.permutation(len(kept))]

    def observe(
        self, groups: Sequence[Group], samples: Sequence[TrainSample], context: Context
    ) -> None:
        """Record the mean reward of every sample in the first stage."""
        means = context.state.setdefault("mean_rewards", {})
        for group in () if self.stage(context) else groups:
            known = group.rewards[scorable(group.rewards)]
            if len(known):
                means[group.prompt.sample.id] = float(known.mean())


def under_full(means: Sequence[float], full: float) -> list[int]:
    """Indices of the samples whose responses did not all earn `full`."""
    return [i for i, mean in enumerate(means) if mean < full]


PASS_RATES = "pass_rates"
"""Where a phase `pass_rate_estimates` notes, by sample id, how often the policy was right."""


@dataclass(frozen=True)
class Failed(Stage, Sampler):
    """Ask what an earlier phase found right less often than `below`, or did not ask.

    That phase is one of `pass_rate_estimates`; raises UserError where there was none.
    """

    below: float = 1.0

    def epoch(self, samples: Sequence[Sample], context: Context) -> Sequence[int] | None:
        """Those samples, shuffled."""
        if PASS_RATES not in context.state:
            raise UserError(
                "sampler 'failed' needs an earlier phase with algorithm pass_rate_estimates"
            )
        rates = context.state[PASS_RATES]
        kept = [i for i, s in enumerate(samples) if rates.get(s.id, 0.0) < self.below]
        return [kept[int(i)] for i in context.rng.permutation(len(kept))]


SAMPLERS: Mapping[str, Sampler] = plugins.Named(
    "mmrl.samplers",
    {
        "upper_confidence": UpperConfidence(),
        "drop_solved": DropSolved(),
        "easy_to_hard": EasyToHard(),
        "hard_stage": HardStage(),
        "failed": Failed(),
    },
)
"""Samplers by the name a config uses."""
