"""The loop. It knows stages, not algorithms, families or tasks.

draw -> expand -> encode -> roll out -> score -> shape -> edit -> credit -> update -> sync
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmrl.algorithm import Algorithm, Context
from mmrl.config import TrainerConfig
from mmrl.data import PromptStream
from mmrl.errors import MediaError, UserError
from mmrl.learner import Learner, UpdateStats
from mmrl.metrics import Clock
from mmrl.policy.encoder import Encodes
from mmrl.quarantine import Quarantine
from mmrl.rollout.rollouts import Rollouts
from mmrl.types import Group, Prompt, Sample, TrainSample


@dataclass(frozen=True)
class StepResult:
    """What one step did, for whoever records it."""

    step: int
    groups: list[Group]
    samples: list[TrainSample]
    updates: UpdateStats
    seconds: dict[str, float]
    kl_coefficient: float
    prompts_drawn: int


@dataclass
class Trainer:
    """Carries an algorithm's stages out, step by step; everything it uses is given to it.

    `state` is the algorithm's own persistent data. Random numbers come from (seed, step) alone,
    so a run that resumes at a step goes on as if it had never stopped.
    """

    algorithm: Algorithm
    learner: Learner
    rollouts: Rollouts
    encoder: Encodes
    stream: PromptStream
    quarantine: Quarantine
    config: TrainerConfig
    seed: int
    state: dict[str, object]
    change: Callable[[Sample, Mapping[str, Any]], Sample]

    def train(self, first_step: int, after_step: Callable[[StepResult], None]) -> None:
        """Run the steps from `first_step` (counted from 1) to the last, or while there is data."""
        for step in range(first_step, self.config.steps + 1):
            result = self.step(step)
            if result is None:
                return
            after_step(result)

    def step(self, step: int) -> StepResult | None:
        """One batch of groups, sampled, scored and trained on; None if nothing is left to ask."""
        context, clock = self._context(step), Clock()
        groups, seen, drawn = self._collect(context, clock)
        if not seen:
            return None
        with clock.stage("credit"):
            samples = self.algorithm.train_samples(groups, context)
        with clock.stage("update"):
            kl = self.algorithm.kl
            coefficient = kl.at(context) if kl else 0.0
            updates = self.learner.update(samples, coefficient)
            if kl:
                kl.observe(updates.kl, len(samples), context)
        self.algorithm.observe(seen, samples, context)
        with clock.stage("sync"):
            self.rollouts.engine.sync()
        return StepResult(step, groups, samples, updates, clock.lap(), coefficient, drawn)

    def _collect(self, context: Context, clock: Clock) -> tuple[list[Group], list[Group], int]:
        """Roll out until the algorithm's editors ask for no more, or refills run out.

        Returns the groups that were kept, all that were seen, and the prompts drawn.
        """
        groups: list[Group] = []
        seen: list[Group] = []
        wanted, drawn = context.prompts_per_step, 0
        for refill in range(1 + self.config.max_refills):
            with clock.stage("encode"):
                prompts = self._prompts(wanted, context)
            if not prompts:
                break
            drawn += wanted
            with clock.stage("rollout"):
                fresh = self._roll_out(prompts, context, refill)
            with clock.stage("score"):
                fresh = self.rollouts.score(fresh)
            with clock.stage("observe"):
                fresh = self.learner.observe(fresh)
            fresh = self.algorithm.shape_rewards(fresh, context)
            seen += fresh
            edited = self.algorithm.edit_groups(groups + fresh, context)
            groups, wanted = edited.groups, edited.wanted
            if not wanted:
                break
        return groups, seen, drawn

    def _prompts(self, count: int, context: Context) -> list[Prompt]:
        """Draw samples and encode their variants; an unusable one is replaced and counted."""
        prompts: list[Prompt] = []
        usable = rejected = 0
        chooser = self.algorithm.chooser(context)
        while usable < count:
            drawn = self.stream.draw(count - usable, chooser)
            if not drawn:
                break
            self.encoder.prefetch(drawn)
            variants = [self.algorithm.expand(sample, context) for sample in drawn]
            for sample, encoded in zip(drawn, self.encoder.encode(variants), strict=True):
                if isinstance(encoded, MediaError):
                    self._quarantine(sample, "encode", str(encoded), context.step)
                    rejected += 1
                else:
                    prompts += encoded
                    usable += 1
            if rejected > max(len(self.stream), count):
                raise UserError(
                    "every sample drawn is unusable; quarantine.jsonl says why for each"
                )
        # Decoded while this batch is rolled out and trained on.
        self.encoder.prefetch(self.stream.peek(count, chooser))
        return prompts

    def _roll_out(self, prompts: Sequence[Prompt], context: Context, refill: int) -> list[Group]:
        counts = self.algorithm.plan(prompts, context)
        length = self.algorithm.length
        seed = derived_seed(self.seed, context.step, refill)
        return self.rollouts.sample(prompts, counts, length(context) if length else None, seed)

    def _quarantine(self, sample: Sample, stage: str, reason: str, step: int) -> None:
        self.quarantine.add(sample.id, stage, reason, step=step, task=sample.task)

    def _context(self, step: int) -> Context:
        return Context(
            step=step,
            total_steps=self.config.steps,
            prompts_per_step=round(self.config.prompts_per_step * self.algorithm.prompt_factor),
            rng=np.random.default_rng([self.seed, step, 0xA1]),
            state=self.state,
            recall=lambda sample: self.encoder.prompt(self.stream.find(sample)),
            change=self.change,
        )


def derived_seed(*parts: int) -> int:
    """A 63-bit seed that depends on every part, the same on every machine."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def update_metrics(updates: UpdateStats) -> dict[str, float]:
    """Flat metrics of a step's updates."""
    known = {name: value for name, value in asdict(updates).items() if value is not None}
    return {f"train/{name}": float(value) for name, value in known.items()}
