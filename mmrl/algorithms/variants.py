"""Variants of a prompt: recorded rewrites, and advantages over all answers to one question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import ClassVar

import numpy as np

from mmrl.algorithm import Context, Need, Stage
from mmrl.algorithms.credit import (
    PRESETS,
    Normalise,
    centre,
    families,
    group_relative,
    pair,
    scorable,
)
from mmrl.errors import UserError
from mmrl.types import Floats, Group, Sample, Text, TrainSample


@dataclass(frozen=True)
class Rewrites(Stage):
    """Ask a sample in `count` variants: as it is, and with recorded rewrites of its text.

    `rewrites` in the sample's meta is a list of texts, each in place of the sample's last text
    part. Which ones are asked is drawn from the sample's id and the step. The original is always
    among them (the released code draws it like any other).
    """

    count: int = 2

    needs: ClassVar[frozenset[Need]] = frozenset({"variants"})

    def __call__(self, sample: Sample, context: Context) -> Sequence[Sample]:
        rewrites = sample.meta.get("rewrites", ())
        if len(rewrites) < self.count - 1:
            raise UserError(
                f"sample '{sample.id}' has {len(rewrites)} rewrites, {self.count} variants need "
                f"{self.count - 1}"
            )
        place = max(i for i, part in enumerate(sample.parts) if isinstance(part, Text))
        seed = int.from_bytes(sha256(f"{sample.id}/{context.step}".encode()).digest()[:8], "big")
        chosen = np.random.default_rng(seed).permutation(len(rewrites))[: self.count - 1]
        return [sample, *(self._rewritten(sample, place, int(i)) for i in sorted(chosen))]

    def _rewritten(self, sample: Sample, place: int, index: int) -> Sample:
        parts = list(sample.parts)
        parts[place] = Text(sample.meta["rewrites"][index])
        return replace(sample, parts=tuple(parts), variant=f"rewrite-{index}")


@dataclass(frozen=True)
class AcrossVariants(Stage):
    """Advantages over all answers to one question, plus those within the variant.

    Share-GRPO, arXiv 2505.16673. `cross`: every response is also trained under every other
    variant's prompt, with the global part only. `repeated`: each reward enters the global standard
    deviation once per variant, as in the released code.
    """

    normalise: Normalise = PRESETS["paper"].normalise
    cross: bool = True
    repeated: bool = False

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        return [
            sample
            for index, family in enumerate(families(groups))
            for sample in self._samples(family, index)
        ]

    def _samples(self, family: list[Group], index: int) -> list[TrainSample]:
        shared = self.globally([group.rewards for group in family])
        samples = []
        for group, across in zip(family, shared, strict=True):
            own = across + group_relative(group.rewards, self.normalise)
            samples += pair(group, own, index)
            for other in family if self.cross else ():
                if other is not group:
                    samples += pair(group, across, index, other.prompt)
        return samples

    def globally(self, rewards: Sequence[Floats]) -> list[Floats]:
        """Advantages of every variant's answers against all answers to the question."""
        joined = np.concatenate(rewards)
        known = joined[scorable(joined)]
        repeats = len(rewards) if self.repeated else 1
        counted = np.repeat(known, repeats)
        if len(counted) <= 1:
            return [np.zeros_like(r) for r in rewards]
        scale = counted.std(ddof=self.normalise.ddof) + self.normalise.epsilon
        ends = np.cumsum([len(r) for r in rewards])[:-1]
        return [np.asarray(part) for part in np.split(centre(joined) / scale, ends)]
