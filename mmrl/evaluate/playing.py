"""One episode of a run's task, played by whoever writes its turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from mmrl.config import RunConfig
from mmrl.data.samples import load_samples
from mmrl.data_config import DataConfig
from mmrl.errors import DataError, UserError
from mmrl.scoring.living import Living
from mmrl.scoring.pool import ScoreJob, Scorer, StepJob, TaskSpec
from mmrl.scoring.tasks import example_answer, load_task, play
from mmrl.task import Task
from mmrl.types import Answer, Observation, Sample, Score

LOOKED_AT = 100_000


@dataclass(frozen=True)
class Played:
    """A record as it was answered: what was shown after each turn, and what it earned.

    `observations` has one for each turn of an episode, none where there is one turn only.
    """

    task: Task
    sample: Sample
    answer: Answer
    observations: tuple[Observation, ...]
    score: Score


Say = Callable[[Sample], str | None]
"""Writes a turn of a sample whose `start` is what is to be seen; None writes nothing."""


def record_of(config: RunConfig, task: Task, name: str | None) -> Sample:
    """The record of this id in a run's first data source, or its first one that can be asked."""
    data = config.data[0]
    samples = load_samples(
        task, data.path, data.task, lambda *_: None, LOOKED_AT, data.columns, data.media_roots
    )
    found = (sample for sample in samples.usable() if name in (None, sample.id))
    for sample in islice(found, 1):
        return sample
    what = f"a record '{name}'" if name else "a record that can be asked"
    raise DataError(f"{data.path} has no {what.removeprefix('a ')}: see `mmrl data inspect`")


def played(config: RunConfig, name: str | None, writer: Callable[[Task], Say]) -> Played:
    """Play a record of a run's first data source in its scoring workers and its environment.

    `writer` makes what writes the turns, of the task. Raises UserError where the environment fails.
    """
    data = config.data[0]
    task = load_task(data.task, data.params)
    sample = record_of(config, task, name)
    seen: list[Observation] = []
    living = Living(_workers(config, data), {data.task: task})

    def step(state: object, answer: Answer) -> Observation:
        (found,) = living.step([StepJob(data.task, sample.gold, state, answer)])
        if isinstance(found, str):
            raise UserError(f"the environment failed: {found}")
        seen.append(found)
        return found

    try:
        answer = play(task, sample, writer(task), step)
        (score,) = living.score([ScoreJob(data.task, sample.gold, answer)])
    finally:
        living.close()
    return Played(task, sample, answer, tuple(seen), score)


def _workers(config: RunConfig, data: DataConfig) -> Scorer:
    rollout = config.rollout
    spec = {data.task: TaskSpec(data.task, data.params, data.weights)}
    return Scorer(spec, 1, rollout.scoring_timeout_seconds, secrets=rollout.scoring_secrets)


def oracle(task: Task) -> Say:
    """Write the turns that the task itself would: the right way."""
    return lambda sample: task.target(sample, example_answer(sample))
