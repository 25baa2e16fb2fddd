"""The data sources of a run: each with its task and its samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mmrl.algorithms.compose import compose
from mmrl.algorithms.stages.credit import FixedGroup
from mmrl.config import RunConfig
from mmrl.corpus.completion import is_thoughtless
from mmrl.data.bands import Bands
from mmrl.data.samples import CHECKED, Samples, load_samples
from mmrl.data.stored_completions import StoredCompletions
from mmrl.data.stream import build_missing, distinct_ids
from mmrl.data_config import OWN_PHASE, DataConfig
from mmrl.errors import DataError
from mmrl.runlog.quarantine import Quarantine, commonest
from mmrl.scoring.pool import TaskSpec
from mmrl.scoring.tasks import load_task
from mmrl.task import Task
from mmrl.types import Answer, Sample

Say = Callable[[str], None]
FEW = 3
"""So many unusable records are no ground for stopping a run, whatever their share."""


@dataclass(frozen=True)
class Source:
    """One data source of a run: its task, its samples, and the held-out ones."""

    key: str
    task: Task
    spec: TaskSpec
    train: Samples
    held_out: Samples | None
    config: DataConfig


def load_sources(
    config: RunConfig, quarantine: Quarantine, say: Say, done: Mapping[str, tuple[int, int]] = {}
) -> list[Source]:
    """Load every data source; records that cannot be asked are quarantined, counted and said.

    `done` are the steps of earlier phases by name: after the first number, up to the second.

    Raises DataError where more than `max_unusable_share` of the records that are looked at first
    cannot be asked.
    """
    sources = []
    # A sampler asks for what it knows of all samples.
    looked_at = None if compose(config.algorithm).sampler else CHECKED
    for index, data in enumerate(config.data):
        if build_missing(data):
            say(f"built {data.path}")
        names = [other.task for other in config.data]
        key = data.task if names.count(data.task) == 1 else f"{data.task}-{index}"
        stored = _stored(data, config, done)
        sources.append(_load(config, data, key, quarantine, say, looked_at, stored))
    train = distinct_ids({source.key: source.train for source in sources})
    return [dataclasses.replace(source, train=train[source.key]) for source in sources]


def _load(
    config: RunConfig,
    data: DataConfig,
    key: str,
    quarantine: Quarantine,
    say: Say,
    looked_at: int | None,
    stored: StoredCompletions | None,
) -> Source:
    task = load_task(data.task, data.params)

    def reject(record: str, reason: str) -> None:
        quarantine.add(record, "read", reason, task=key)

    taught = _taught(config, task)
    where = data.columns, data.media_roots
    held_out = (
        load_samples(task, data.eval_path, key, reject, None, *where) if data.eval_path else None
    )
    bands = Bands(data.keep, data.path) if data.keep else None
    train = load_samples(
        task,
        data.path,
        key,
        reject,
        data.limit,
        *where,
        looked_at=looked_at,
        check=taught,
        with_more=stored.of if stored else None,
        keep=bands.places if bands else None,
    )
    if bands:
        say(bands.line(key))
    if stored:
        cut = f"; {stored.cut} that were cut short are left out" if stored.cut else ""
        say(f"{key}: stored completions of {len(stored)} records{cut}")
    for line in _facts(data, key, train):
        say(line)
    if held_out is not None and held_out.reasons:
        say(f"held-out records of {_refused(key, held_out)}; see quarantine.jsonl")
    if taught and (line := taught.line(key)):
        say(line)
    spec = TaskSpec(data.task, data.params, data.weights)
    return Source(key, task, spec, train, held_out, data)


def _stored(
    data: DataConfig, config: RunConfig, done: Mapping[str, tuple[int, int]]
) -> StoredCompletions | None:
    """The completions of a source's records that lie elsewhere, or in the run itself."""
    if data.stored is None:
        return None
    name = str(data.stored)
    if not name.startswith(OWN_PHASE):
        return StoredCompletions(data.stored)
    return StoredCompletions(config.run, done[name.removeprefix(OWN_PHASE)])


def _facts(data: DataConfig, key: str, train: Samples) -> list[str]:
    """What is to be said of a source's records; raises DataError where too many are no use."""
    lines = []
    if train.repeated:
        lines.append(f"{key}: {train.repeated} records share an id with another: they got a suffix")
    rejected, looked = train.reasons.total(), train.looked_at
    if not rejected:
        return lines
    said = _refused(key, train)
    if rejected > max(FEW, data.max_unusable_share * looked):
        raise DataError(f"{said}; data.max_unusable_share={data.max_unusable_share:g} allows fewer")
    return [*lines, f"{said}; see quarantine.jsonl"]


def _refused(key: str, samples: Samples) -> str:
    """How many of a source's records cannot be asked, and the commonest reason."""
    reason, count = commonest(samples.reasons)
    return (
        f"{key}: {samples.reasons.total()} of {samples.looked_at} records cannot be asked, {count} "
        f"of them: {reason}"
    )


class Taught:
    """Checks what a phase without sampling would teach, and counts the thoughts that are empty.

    `in_pairs`: it compares the completions of a record, else it learns its one target.
    """

    def __init__(self, task: Task, *, in_pairs: bool = False) -> None:
        self._task, self._in_pairs = task, in_pairs
        self.completions = self.thoughtless = 0

    def __call__(self, sample: Sample) -> None:
        """Raises ValueError where a record's completion contradicts its gold.

        Of tasks whose targets need to see the picture nothing can be said before it is decoded.
        """
        if sample.start is not None:
            return
        if self._in_pairs:
            _refuse_no_pair(sample)
            return
        try:
            text = self._task.completion(sample, Answer(""))
        except (IndexError, AssertionError):
            return
        if text is None:
            raise ValueError("no target, completion, chosen or assistant turn to learn from")
        self.completions += 1
        self.thoughtless += is_thoughtless(text)

    def line(self, key: str) -> str:
        """What is to be said of the completions, "" if nothing is."""
        if not self.thoughtless:
            return ""
        share = self.thoughtless / self.completions
        return (
            f"{key}: {self.thoughtless} of {self.completions} targets ({share:.0%}) have an empty "
            "thought, which is what they teach: give the records a `thought` or a whole `target`"
        )


def _taught(config: RunConfig, task: Task) -> Taught | None:
    """What checks the records of a phase that samples nothing."""
    if config.rollout.engine != "targets":
        return None
    plan = compose(config.algorithm).plan
    return Taught(task, in_pairs=isinstance(plan, FixedGroup) and plan.size > 1)


def _refuse_no_pair(sample: Sample) -> None:
    """Raise ValueError for a record whose completions cannot be compared."""
    ranked = sample.reference.ranked if sample.reference else ()
    if len(ranked) < 2:
        raise ValueError("no pair to learn from: chosen and rejected, or several completions")
    earned = [reward for _, reward in ranked]
    if None not in earned and len(set(earned)) == 1:
        raise ValueError("no pair to learn from: all its completions earned the same")
