"""The trainer of a phase, put together from what learns and what asks and answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from mmrl.algorithm import Algorithm
from mmrl.data.sources import Source
from mmrl.data.stream import PromptStream
from mmrl.engines.targets import Targets, written
from mmrl.errors import ConfigError
from mmrl.policy.policy import Policy
from mmrl.policy.weights import weights_of
from mmrl.rollout.build import OTHER_CODE
from mmrl.rollout.resets import FromWithin
from mmrl.rollout.rollouts import Rollouts
from mmrl.rollout.stored import Stored
from mmrl.rollout.thinking import Thinking
from mmrl.rollout_config import RolloutConfig
from mmrl.task import Task
from mmrl.train.ahead import Ahead
from mmrl.train.batches import Asker, OnPolicy
from mmrl.train.correction import Correction
from mmrl.train.keeping import kept_tokens
from mmrl.train.learner import Learner
from mmrl.train.model_parts import ModelParts
from mmrl.train.rollout_parts import RolloutParts, at_home, everywhere
from mmrl.train.setting import Setting
from mmrl.train.trainer import Trainer
from mmrl.types import Sample


def build_trainer(
    setting: Setting,
    algorithm: Algorithm,
    sources: Sequence[Source],
    models: ModelParts,
    rollout: RolloutParts,
) -> tuple[Trainer, Ahead | None]:
    """The trainer of a phase, and the queue of its batches where they are rolled out ahead."""
    config = setting.config
    rollouts = Rollouts(
        rollout.engine,
        rollout.scorer,
        config.rollout,
        greedy_too="greedy" in algorithm.needs,
        thinking=make_thinking(algorithm, models.policy),
        panel=rollout.panel,
        stored=make_stored(config.rollout, models.policy),
        within=make_within(algorithm, models.policy, sources),
    )
    asker = build_asker(setting, algorithm, sources, models.policy, rollout)
    ahead = build_ahead(setting, sources, models, rollout, asker, rollouts)
    trainer = Trainer(
        algorithm=algorithm,
        learner=build_learner(setting, algorithm, models),
        rollouts=rollouts,
        asker=asker,
        batches=ahead or OnPolicy(asker, rollouts),
        config=config.trainer,
        weights=lambda step: weights_of(models.policy, step),
        critic_steps=models.critic_steps,
    )
    return trainer, ahead


def build_asker(
    setting: Setting,
    algorithm: Algorithm,
    sources: Sequence[Source],
    policy: Policy,
    rollout: RolloutParts,
) -> Asker:
    """What draws the steps' samples."""
    config = setting.config
    stream = [(s.train, s.config.mix, s.config.shuffle) for s in sources]
    return Asker(
        algorithm=algorithm,
        encoder=rollout.encoder,
        stream=PromptStream(stream, config.seed),
        quarantine=setting.records.quarantine,
        config=config.trainer,
        seed=config.seed,
        state={},
        change=changing(sources),
        completed=lambda prompt, text: written(
            policy, prompt, text, config.rollout.max_new_tokens, "completion"
        ),
        max_unusable_share=max(s.config.max_unusable_share for s in sources),
    )


def build_learner(setting: Setting, algorithm: Algorithm, models: ModelParts) -> Learner:
    """What carries the algorithm's objective out."""
    rollout = setting.config.rollout
    return Learner(
        models.policy,
        algorithm,
        models.backend,
        temperature=rollout.temperature,
        tokens_per_micro_batch=models.budget,
        reference=models.reference,
        world=setting.world,
        critic=models.critic,
        correction=make_correction(rollout),
        other_engine=rollout.engine in OTHER_CODE,
        kept_tokens=kept_tokens(setting.config, algorithm, models.budget),
    )


def build_ahead(
    setting: Setting,
    sources: Sequence[Source],
    models: ModelParts,
    rollout: RolloutParts,
    asker: Asker,
    rollouts: Rollouts,
) -> Ahead | None:
    """The queue of batches that are rolled out ahead of the update, where an engine does so."""
    if rollout.background is None:
        return None
    encoder = rollout.encoder.beside(rollout.aside)
    home = at_home(setting, sources, encoder.own, rollout.workers, rollout.background.engine)
    # The engine's own weights are whole as they are.
    engine = everywhere(sources, encoder, home, nullcontext)
    return Ahead(
        asker,
        dataclasses.replace(rollouts, engine=engine),
        rollout.background,
        setting.config.rollout.max_staleness,
    )


def changing(
    sources: Sequence[Source],
) -> Callable[[Sample, Mapping[str, Any]], Sample | None]:
    """What asks a sample with changed pictures, None where its gold is not known then.

    A task that never knows it raises ConfigError.
    """
    tasks = {source.key: source.task for source in sources}

    def change(sample: Sample, options: Mapping[str, Any]) -> Sample | None:
        task = tasks[sample.task]
        if not task.keeps and type(task).changed is Task.changed:
            named = ", ".join(f"{key} {value}" for key, value in options.items())
            raise ConfigError(
                f"task '{task.name}' does not say its gold for changed pictures ({named}): "
                "take the changes out of the algorithm, or give the task a `changed`"
            )
        return task.changed(sample, options)

    return change


def make_within(
    algorithm: Algorithm, policy: Policy, sources: Sequence[Source]
) -> FromWithin | None:
    """What begins answers within the records' own, where the algorithm asks for it."""
    if algorithm.resets is None:
        return None
    targets = Targets(policy, {source.key: source.task for source in sources})
    return FromWithin(targets, policy.processor.tokenizer, algorithm.resets.share)


def make_thinking(algorithm: Algorithm, policy: Policy) -> Thinking | None:
    """What cuts the thinking at budgets, where the algorithm asks for it."""
    cuts = algorithm.cuts
    return Thinking(cuts, policy.family, policy.processor.tokenizer) if cuts else None


def make_stored(rollout: RolloutConfig, policy: Policy) -> Stored | None:
    """What writes the records' own completions into groups; nothing else is there for `targets`."""
    if rollout.engine == "targets":
        return Stored(policy, None)
    return Stored(policy, rollout.stored) if rollout.stored else None


def make_correction(rollout: RolloutConfig) -> Correction | None:
    """The importance correction that is configured."""
    if rollout.correction is None:
        return None
    return Correction(rollout.correction, rollout.correction_limit)
