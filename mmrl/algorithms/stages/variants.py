"""Variants of a prompt, in other words or with changed pictures, and advantages over them all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count, islice
from typing import Any, ClassVar, Literal

import numpy as np

from mmrl.algorithms.stages.credit import (
    PRESETS,
    Normalise,
    centre,
    families,
    group_relative,
    pair,
    scorable,
)
from mmrl.errors import UserError
from mmrl.stage import Context, Need, Stage
from mmrl.types import Floats, Group, Sample, Text, TrainSample

Change = Literal[
    "rotate_90_cw",
    "rotate_90_ccw",
    "rotate_180",
    "noise_10",
    "noise_25",
    "noise_50",
    "blur_1",
    "blur_2",
    "upside_down",
    "mirror",
    "mirror_180",
    "swap_answers",
]
CHANGES: Mapping[Change, tuple[Mapping[str, Any], str]] = {
    "rotate_90_cw": ({"turn": "rotate_90_cw"}, "is rotated by 90 degrees clockwise"),
    "rotate_90_ccw": ({"turn": "rotate_90_ccw"}, "is rotated by 90 degrees counter-clockwise"),
    "rotate_180": ({"turn": "rotate_180"}, "is rotated by 180 degrees"),
    "noise_10": ({"noise": 10.0}, "has some noise"),
    "noise_25": ({"noise": 25.0}, "has noise"),
    "noise_50": ({"noise": 50.0}, "has strong noise"),
    "blur_1": ({"blur": 1.0}, "is slightly blurred"),
    "blur_2": ({"blur": 2.0}, "is blurred"),
    "upside_down": ({"turn": "upside_down"}, "is flipped upside down"),
    "mirror": ({"turn": "mirror"}, "is mirrored: left and right are swapped"),
    "mirror_180": ({"turn": "mirror_180"}, "is flipped upside down and mirrored"),
    "swap_answers": ({"swap_answers": True}, ""),
}
"""Changes of a picture: its options, and what the prompt says of it; and of the order of answers
that a judge is shown, of which it is told nothing."""


@dataclass(frozen=True)
class Rewrites(Stage):
    """Ask a sample in `count` variants: as it is, and with other words or changed pictures.

    Words come from `rewrites` in the sample's meta, and from `templates`, in which `{text}` stands
    for the sample's last text part; each takes that part's place. Then every variant but the
    original gets one of `changes` with probability `change_share`, and a sentence that says so;
    variants for which no words are left get one for certain. A change may change the gold, which is
    then the variant's own; one after which it is not known is passed over for another. What is
    drawn follows from the sample's id and the step. The original is always among the variants (the
    released code draws it like any other). Raises UserError where neither words nor changes are
    enough.
    """

    count: int = 2
    templates: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    change_share: float = 0.3

    needs: ClassVar[frozenset[Need]] = frozenset({"variants"})

    def __call__(self, sample: Sample, context: Context) -> Sequence[Sample]:
        words = self._words(sample)
        missing = self.count - 1 - len(words)
        if missing > len(self.changes):
            raise UserError(
                f"sample '{sample.id}' has {len(words)} rewrites, {self.count} variants need "
                f"{self.count - 1}: add `rewrites` to the records, or `templates` or `changes`"
            )
        seed = int.from_bytes(sha256(f"{sample.id}/{context.step}".encode()).digest()[:8], "big")
        rng = np.random.default_rng(seed)
        chosen = [words[int(i)] for i in sorted(rng.permutation(len(words))[: self.count - 1])]
        variants = [self._changed(v, rng, context) for v in chosen]
        order = [self.changes[int(i)] for i in rng.permutation(len(self.changes))]
        alone = list(islice(self._each(sample, order, context), max(missing, 0)))
        if len(alone) < missing:
            raise UserError(
                f"sample '{sample.id}' knows its answer after {len(alone)} of `changes` "
                f"({', '.join(order)}), its variants need {missing}: add others, such as noise_10"
            )
        return [sample, *variants, *alone]

    def _words(self, sample: Sample) -> list[Sample]:
        place = max(i for i, part in enumerate(sample.parts) if isinstance(part, Text))
        part = sample.parts[place]
        assert isinstance(part, Text)
        recorded = {f"rewrite-{i}": t for i, t in enumerate(sample.meta.get("rewrites", ()))}
        written = {
            f"template-{i}": template.replace("{text}", part.text)
            for i, template in enumerate(self.templates)
        }
        return [
            _said(sample, place, text, variant) for variant, text in {**recorded, **written}.items()
        ]

    def _changed(self, variant: Sample, rng: np.random.Generator, context: Context) -> Sample:
        if not self.changes or rng.random() >= self.change_share:
            return variant
        first = int(rng.integers(len(self.changes)))
        order = (*self.changes[first:], *self.changes[:first])
        return next(self._each(variant, order, context), variant)

    def _each(
        self, sample: Sample, changes: Sequence[Change], context: Context
    ) -> Iterator[Sample]:
        """The sample after each of the changes that leave its gold known."""
        for change in changes:
            options, told = CHANGES[change]
            changed = context.change(sample, options)
            if changed is not None:
                yield self._told(changed, change, told)

    def _told(self, changed: Sample, change: Change, told: str) -> Sample:
        place = max(i for i, part in enumerate(changed.parts) if isinstance(part, Text))
        part = changed.parts[place]
        assert isinstance(part, Text)
        name = "+".join(filter(None, (changed.variant, change)))
        said = f"The picture {told}. {part.text}" if told else part.text
        return _said(changed, place, said, name)


def _said(sample: Sample, place: int, text: str, variant: str) -> Sample:
    parts = list(sample.parts)
    parts[place] = Text(text)
    return replace(sample, parts=tuple(parts), variant=variant)


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
        places = count()
        return [
            sample
            for tie, family in enumerate(families(groups))
            for sample in self._samples(family, tie, places)
        ]

    def _samples(self, family: list[Group], tie: int, places: Iterator[int]) -> list[TrainSample]:
        shared = self.globally([group.rewards for group in family])
        samples = []
        for i, (group, across) in enumerate(zip(family, shared, strict=True)):
            own, place = across + group_relative(group.rewards, self.normalise), next(places)
            samples += pair(group, own, place, tie=tie)
            for j, other in enumerate(family if self.cross else ()):
                if j != i:
                    samples += pair(group, across, place, other.prompt, tie)
        return samples

    def globally(self, rewards: Sequence[Floats]) -> list[Floats]:
        """Advantages [G] of every variant's answers against all answers to the question."""
        joined = np.concatenate(rewards)
        known = joined[scorable(joined)]
        repeats = len(rewards) if self.repeated else 1
        counted = np.repeat(known, repeats)
        if len(counted) <= 1:
            return [np.zeros_like(r) for r in rewards]
        scale = counted.std(ddof=self.normalise.ddof) + self.normalise.epsilon
        ends = np.cumsum([len(r) for r in rewards])[:-1]
        return [np.asarray(part) for part in np.split(centre(joined) / scale, ends)]
