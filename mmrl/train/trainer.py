"""The loop. It knows stages, not algorithms, families or tasks.

draw -> expand -> encode -> roll out -> score -> shape -> edit -> credit -> update -> sync
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from mmrl.algorithm import Algorithm
from mmrl.config import TrainerConfig
from mmrl.policy.weights import Weights
from mmrl.rollout.rollouts import Rollouts
from mmrl.runlog.metrics import Clock, questions
from mmrl.stage import Context
from mmrl.task import Moment
from mmrl.train.batches import Asker, Batches
from mmrl.train.learner import Learner
from mmrl.train.update_stats import UpdateStats
from mmrl.types import Group, TrainSample


@dataclass(frozen=True)
class StepResult:
    """What one step did, for whoever records it; `overlap` says how its groups came about,
    and what judging them cost.
    """

    step: int
    groups: list[Group]
    samples: list[TrainSample]
    updates: UpdateStats
    seconds: dict[str, float]
    kl_coefficient: float
    prompts_drawn: int
    overlap: dict[str, float] = field(default_factory=dict)


@dataclass
class Trainer:
    """Carries an algorithm's stages out, step by step; everything it uses is given to it.

    `weights` are what the policy is after so many steps, asked for when it is. In the first
    `critic_steps` steps the critic learns alone.
    """

    algorithm: Algorithm
    learner: Learner
    rollouts: Rollouts
    asker: Asker
    batches: Batches
    config: TrainerConfig
    weights: Callable[[int], Weights]
    critic_steps: int = 0

    def train(self, first_step: int, after_step: Callable[[StepResult], None]) -> None:
        """Run the steps from `first_step` (counted from 1) to the last, or while there is data."""
        for step in range(first_step, self.config.steps + 1):
            result = self.step(step)
            if result is None:
                return
            after_step(result)

    def step(self, step: int) -> StepResult | None:
        """One batch of groups, sampled, scored and trained on; None if nothing is left to ask."""
        context, clock = self.asker.context(step), Clock()
        groups, seen, drawn = self._collect(context, clock)
        if not seen:
            return None
        self.batches.collected(context, clock)
        with clock.stage("credit"):
            samples = self.algorithm.train_samples(groups, context)
        with clock.stage("update"):
            kl = self.algorithm.kl
            coefficient = kl.at(context) if kl else 0.0
            if step <= self.critic_steps:
                updates = self.learner.update_critic(samples)
            else:
                updates = self.learner.update(samples, coefficient, step - self.critic_steps)
            if kl and updates.kl is not None:
                kl.observe(updates.kl, len(samples), context)
            if updates.divergence is not None:
                self.algorithm.learnt(updates.divergence, context)
        self.algorithm.observe(seen, samples, context)
        with clock.stage("sync"):
            self.rollouts.engine.sync(self.weights(step))
        overlap = {**self.batches.metrics(step, seen), **self.rollouts.metrics()}
        return StepResult(step, groups, samples, updates, clock.lap(), coefficient, drawn, overlap)

    def _collect(self, context: Context, clock: Clock) -> tuple[list[Group], list[Group], int]:
        """Take batches until the algorithm's editors ask for no more, or refills run out.

        Returns the groups that were kept, all that were seen, and the prompts drawn.
        """
        groups: list[Group] = []
        seen: list[Group] = []
        wanted, drawn = context.prompts_per_step, 0
        for refill in range(1 + self.config.max_refills):
            fresh = self.batches.take(context, wanted, refill, clock)
            if not fresh:
                break
            drawn += min(wanted, questions(fresh))
            with clock.stage("score"):
                done = Moment(context.step - 1, context.total_steps)
                fresh = self.rollouts.score(fresh, done)
            with clock.stage("observe"):
                fresh = self.learner.observe(fresh)
            fresh = self.algorithm.shape_rewards(fresh, context)
            seen += fresh
            edited = self.algorithm.edit_groups(groups + fresh, context)
            groups, wanted = edited.groups, edited.wanted
            if not wanted:
                break
        return groups, seen, drawn


def update_metrics(updates: UpdateStats) -> dict[str, float]:
    """Flat metrics of a step's updates; what there was nothing of has no name."""
    known = {name: value for name, value in asdict(updates).items() if value is not None}
    return {f"train/{name}": float(value) for name, value in known.items()}
