"""Where a step's groups come from: samples drawn, expanded, encoded and rolled out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mmrl.algorithm import Algorithm
from mmrl.config import TrainerConfig
from mmrl.data.sources import FEW
from mmrl.data.stream import PromptStream
from mmrl.errors import DataError, MediaError
from mmrl.policy.encoder import Encodes
from mmrl.rollout.rollouts import Rollouts
from mmrl.runlog.metrics import Clock
from mmrl.runlog.quarantine import Quarantine
from mmrl.stage import Context
from mmrl.types import Group, Prompt, Response, Sample


@dataclass(frozen=True)
class Asked:
    """Prompts with how many responses each gets, of at most `length` tokens (None: as configured).

    `drawn` are the ids of the samples by round of drawing, those that were unusable too.
    """

    prompts: Sequence[Prompt]
    counts: Sequence[int]
    length: int | None
    seed: int
    drawn: tuple[tuple[str, ...], ...]


@dataclass
class Asker:
    """Draws what a step asks, and makes the step's context.

    `state` is the algorithm's own persistent data. Random numbers come from (seed, step) alone,
    so a run that resumes at a step goes on as if it had never stopped.
    """

    algorithm: Algorithm
    encoder: Encodes
    stream: PromptStream
    quarantine: Quarantine
    config: TrainerConfig
    seed: int
    state: dict[str, object]
    change: Callable[[Sample, Mapping[str, Any]], Sample | None]
    completed: Callable[[Prompt, str], Response]
    max_unusable_share: float = 1.0
    _asked: int = 0
    _unusable: int = 0

    def context(self, step: int) -> Context:
        """What the stages of a step may use."""
        return Context(
            step=step,
            total_steps=self.config.steps,
            prompts_per_step=round(self.config.prompts_per_step * self.algorithm.prompt_factor),
            rng=np.random.default_rng([self.seed, step, 0xA1]),
            state=self.state,
            recall=lambda sample: self.encoder.prompt(self.stream.find(sample)),
            change=self.change,
            write=lambda sample, text: self._written(sample, text, step),
        )

    def ask(self, context: Context, count: int, refill: int = 0) -> Asked:
        """Draw `count` samples and encode their variants; no prompts if nothing is left to ask."""
        chooser = self.algorithm.chooser(context)
        drawn: list[tuple[str, ...]] = []

        def draw(missing: int) -> list[Sample]:
            samples = self.stream.draw(missing, chooser)
            drawn.append(tuple(sample.id for sample in samples))
            return samples

        prompts = self._encoded(draw, count, context)
        # Decoded while this batch is rolled out and trained on.
        self.encoder.prefetch(self.stream.peek(count, chooser))
        length = self.algorithm.length
        return Asked(
            prompts,
            self.algorithm.plan(prompts, context) if prompts else (),
            length(context) if prompts and length else None,
            derived_seed(self.seed, context.step, refill),
            tuple(drawn),
        )

    def again(self, context: Context, count: int, drawn: Sequence[Sequence[str]]) -> list[Prompt]:
        """The prompts that `ask` made of what was drawn then."""
        rounds = iter(drawn)
        find = self.stream.find
        return self._encoded(lambda missing: [find(i) for i in next(rounds, ())], count, context)

    def _encoded(
        self, draw: Callable[[int], list[Sample]], count: int, context: Context
    ) -> list[Prompt]:
        """Encode the variants of what is drawn; an unusable sample is replaced and counted."""
        prompts: list[Prompt] = []
        usable = rejected = 0
        while usable < count:
            drawn = draw(count - usable)
            if not drawn:
                break
            self.encoder.prefetch(drawn)
            variants = [self.algorithm.expand(sample, context) for sample in drawn]
            for sample, encoded in zip(drawn, self.encoder.encode(variants), strict=True):
                self._asked += 1
                if isinstance(encoded, MediaError):
                    self._quarantine(sample, "encode", str(encoded), context.step)
                    rejected += 1
                    self._refuse_many()
                else:
                    prompts += encoded
                    usable += 1
            if rejected > max(len(self.stream), count):
                raise DataError(
                    "every sample drawn is unusable; quarantine.jsonl says why for each"
                )
        return prompts

    def _written(self, sample: Sample, text: str, step: int) -> tuple[Prompt, Response] | None:
        """A question of the algorithm's own with its completion; one too long is quarantined."""
        try:
            prompt = self.encoder.prompt(sample)
        except MediaError as error:
            self._quarantine(sample, sample.variant, str(error), step)
            return None
        return prompt, self.completed(prompt, text)

    def _refuse_many(self) -> None:
        """Count an unusable sample; raises UserError where they are too large a share."""
        self._unusable += 1
        if self._unusable > max(FEW, self.max_unusable_share * self._asked):
            raise DataError(
                f"{self._unusable} of {self._asked} samples cannot be used, over "
                f"data.max_unusable_share={self.max_unusable_share:g}; {self.quarantine.line()}"
            )

    def _quarantine(self, sample: Sample, stage: str, reason: str, step: int) -> None:
        self.quarantine.add(sample.id, stage, reason, step=step, task=sample.task)


class Batches(Protocol):
    """Gives a step its groups, rolled out and not yet scored."""

    def take(self, context: Context, wanted: int, refill: int, clock: Clock) -> list[Group]:
        """The groups of `wanted` samples; none if nothing is left to ask.

        `refill` numbers what the step's editors asked for, from 1; 0 is the step's own batch.
        """
        ...

    def collected(self, context: Context, clock: Clock) -> None:
        """Take note that a step has all its groups."""
        ...

    def metrics(self, step: int, groups: Sequence[Group]) -> dict[str, float]:
        """What is to be said of how a step's groups came about."""
        ...


@dataclass(frozen=True)
class OnPolicy:
    """Rolls out when a step asks, with the weights that it trains."""

    asker: Asker
    rollouts: Rollouts

    def take(self, context: Context, wanted: int, refill: int, clock: Clock) -> list[Group]:
        with clock.stage("encode"):
            asked = self.asker.ask(context, wanted, refill)
        if not asked.prompts:
            return []
        with clock.stage("rollout"):
            return self.rollouts.sample(asked.prompts, asked.counts, asked.length, asked.seed)

    def collected(self, context: Context, clock: Clock) -> None:
        """Nothing is done ahead."""

    def metrics(self, step: int, groups: Sequence[Group]) -> dict[str, float]:
        return {}


def derived_seed(*parts: int) -> int:
    """A 63-bit seed that depends on every part, the same on every machine."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
