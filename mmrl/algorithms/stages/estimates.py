"""Estimates of every prompt before training: an algorithm that samples, notes, and trains nothing.

What it notes stays in the algorithm's state, by sample id, for the phase that comes after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmrl.stage import Context, Sampler, Stage
from mmrl.types import Group, Sample, TrainSample


@dataclass(frozen=True)
class EachOnce(Stage, Sampler):
    """Ask every sample once, then end; state: the ids under `key` are done.

    `anew`: those too, whose estimates of an earlier phase are of an earlier policy.
    """

    key: str
    anew: bool = False

    def epoch(self, samples: Sequence[Sample], context: Context) -> Sequence[int] | None:
        """Samples without an estimate, in their order; after that epoch nothing is left."""
        if context.epoch:
            return []
        done = {} if self.anew else context.state.get(self.key, {})
        return [i for i, sample in enumerate(samples) if sample.id not in done]


@dataclass(frozen=True)
class Note(Stage):
    """Note an estimate of every group in the state under `key`, and train on nothing."""

    key: str
    estimate: Callable[[Group], object]

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        noted = context.state.setdefault(self.key, {})
        for group in groups:
            value = self.estimate(group)
            if value is not None:
                noted[group.prompt.sample.id] = value
        return []
