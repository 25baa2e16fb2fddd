"""The parts of one phase of a run, each built from those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.turns import require_episodes
from mmrl.data.samples import CHECKED
from mmrl.data.sources import Source, load_sources
from mmrl.data.stream import build_missing
from mmrl.engines.parity import Parity
from mmrl.evaluate.held_out import HeldOut
from mmrl.runlog.trackers import Trackers
from mmrl.train.ahead import Ahead
from mmrl.train.changes import digest
from mmrl.train.model_parts import ModelParts, build_models
from mmrl.train.requirements import load_algorithm
from mmrl.train.rollout_parts import RolloutParts, build_parity, build_rollout
from mmrl.train.setting import Setting
from mmrl.train.trainer import Trainer
from mmrl.train.trainer_parts import build_trainer


@dataclass(frozen=True)
class Parts:
    """Everything that a phase is carried out with.

    `digests` tell the records of each source apart from others. `ahead` is the queue of batches of
    a phase that rolls out ahead; `parity` the gate of an engine with weights of its own.
    """

    setting: Setting
    algorithm: Algorithm
    sources: Sequence[Source]
    digests: Mapping[str, str]
    models: ModelParts
    rollout: RolloutParts
    trainer: Trainer
    ahead: Ahead | None
    held_out: HeldOut
    parity: Parity | None
    trackers: Trackers


def build_parts(setting: Setting, closing: ExitStack) -> Parts:
    """Build a phase; `closing` frees what it holds, also of a phase that could not be built."""
    algorithm = load_algorithm(setting.config)
    for note in filter(None, (setting.phase.note, *algorithm.notes)):
        setting.say(note)
    sources = read_sources(setting, algorithm)
    digests = {source.key: digest(source.train) for source in sources}
    models = build_models(setting, algorithm)
    rollout = build_rollout(setting, sources, models, closing)
    trainer, ahead = build_trainer(setting, algorithm, sources, models, rollout)
    parity = build_parity(setting, sources, rollout, trainer.learner.own)
    held_out = build_held_out(setting, sources, rollout)
    trackers = start_trackers(setting)
    closing.callback(trackers.close)
    return Parts(
        setting=setting,
        algorithm=algorithm,
        sources=sources,
        digests=digests,
        models=models,
        rollout=rollout,
        trainer=trainer,
        ahead=ahead,
        held_out=held_out,
        parity=parity,
        trackers=trackers,
    )


def read_sources(setting: Setting, algorithm: Algorithm) -> Sequence[Source]:
    """Read the phase's records; one process makes those that are missing."""
    setting.world.once(lambda: [build_missing(data) for data in setting.config.data])
    done = setting.place.done(setting.phases)
    sources = load_sources(setting.config, setting.records.quarantine, setting.say, done)
    require_episodes(algorithm, (s for source in sources for s in source.train.usable(CHECKED)))
    return sources


def build_held_out(setting: Setting, sources: Sequence[Source], rollout: RolloutParts) -> HeldOut:
    """What evaluates the policy on the sources' held-out records."""
    return HeldOut(
        setting.config,
        sources,
        rollout.encoder,
        rollout.judge,
        rollout.scorer,
        setting.world,
        setting.say,
    )


def start_trackers(setting: Setting) -> Trackers:
    """The configured trackers, on the process that writes."""
    config = setting.config
    names = config.trainer.trackers if setting.world.first else ()
    settings, answers = config.model_dump(mode="json"), config.trainer.tracked_answers
    return Trackers(names, config.run, settings, setting.say, answers=answers)
