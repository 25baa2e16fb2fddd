"""The data sources of a run: each with its task and its samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from mmrl.config import DataConfig, RunConfig
from mmrl.data.stream import build_missing, distinct_ids, load_samples
from mmrl.runlog.quarantine import Quarantine
from mmrl.scoring.pool import TaskSpec
from mmrl.scoring.tasks import load_task
from mmrl.task import Task
from mmrl.types import Sample

Say = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """One data source of a run: its task, its samples, and the held-out ones."""

    key: str
    task: Task
    spec: TaskSpec
    train: list[Sample]
    held_out: list[Sample]
    config: DataConfig


def load_sources(config: RunConfig, quarantine: Quarantine, say: Say) -> list[Source]:
    """Load every data source; records that cannot be asked are quarantined and counted."""
    sources = []
    for index, data in enumerate(config.data):
        if build_missing(data):
            say(f"built {data.path}")
        task = load_task(data.task, data.params)
        names = [other.task for other in config.data]
        key = data.task if names.count(data.task) == 1 else f"{data.task}-{index}"

        def reject(record: str, reason: str, key: str = key) -> None:
            quarantine.add(record, "read", reason, task=key)

        held_out = load_samples(task, data.eval_path, key, reject) if data.eval_path else []
        sources.append(
            Source(
                key=key,
                task=task,
                spec=TaskSpec(data.task, data.params, data.weights),
                train=load_samples(task, data.path, key, reject, data.limit, data.columns),
                held_out=held_out,
                config=data,
            )
        )
    if quarantine.counts:
        say(f"quarantined {quarantine.counts.get('read', 0)} records; see quarantine.jsonl")
    train = distinct_ids({source.key: source.train for source in sources})
    return [dataclasses.replace(source, train=train[source.key]) for source in sources]
