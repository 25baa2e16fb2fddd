"""Records -> a resumable stream of samples, mixed from several sources, bad ones in quarantine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmrl import plugins
from mmrl.config import DataConfig
from mmrl.data.columns import carried_columns
from mmrl.errors import DataError
from mmrl.task import Task
from mmrl.types import Sample

Reject = Callable[[str, str], None]
"""Called with (sample id, reason) for every record that cannot be asked."""


def load_samples(
    task: Task,
    path: Path,
    key: str,
    reject: Reject,
    limit: int | None = None,
    columns: Mapping[Any, str] | None = None,
) -> list[Sample]:
    """Ask every record of a file; a gold that does not parse goes to `reject`, with its reason.

    `key` replaces the task's name in the samples, so that scores find their source's settings.
    What algorithms read of a record stands in its sample's meta, from the `columns` of those
    names or the named ones. Raises DataError if no sample is left or two records share an id.
    """
    samples: dict[str, Sample] = {}
    for record in itertools.islice(task.records(path), limit):
        try:
            sample = replace(task.sample(record), task=key)
            meta = {**carried_columns(record.fields, columns or {}), **sample.meta}
        except (ValueError, KeyError, TypeError) as error:
            reject(record.id, f"{type(error).__name__}: {error}")
            continue
        if sample.id in samples:
            raise DataError(f"{path}: two records have the id '{sample.id}'")
        samples[sample.id] = replace(sample, meta=meta)
    if not samples:
        raise DataError(f"{path}: no usable record for task '{key}'; see quarantine.jsonl")
    return list(samples.values())


def build_missing(source: DataConfig) -> bool:
    """Run the source's recipe if its file is missing; True if it ran."""
    if source.path.exists() or source.recipe is None:
        return False
    plugins.load("recipe", source.recipe.name).build(source.recipe.source, source.recipe.out)
    return True


class Chooser(Protocol):
    """Decides what a stream draws, from what a run has observed so far."""

    def mix(self, shares: Mapping[str, float]) -> Mapping[str, float]:
        """Return the share of each source in the next draws."""
        ...

    def stage(self) -> int:
        """Return the number of the current stage; where it changes, sources begin a new epoch."""
        ...

    def epoch(
        self, samples: Sequence[Sample], number: int, rng: np.random.Generator
    ) -> Sequence[int] | None:
        """Return which samples a source's epoch `number` (from 0) asks, in order.

        None: as usual; empty: the source has ended.
        """
        ...


def distinct_ids(sources: Mapping[str, Sequence[Sample]]) -> dict[str, list[Sample]]:
    """Put each source's key before its ids where sources share one: a run knows samples by id."""
    ids = [sample.id for samples in sources.values() for sample in samples]
    if len(set(ids)) == len(ids):
        return {key: list(samples) for key, samples in sources.items()}
    return {
        key: [replace(sample, id=f"{key}/{sample.id}") for sample in samples]
        for key, samples in sources.items()
    }


@dataclass
class _Source:
    """`order` is that of the current epoch; `chosen` where a chooser made it; `ended` for good.

    `stage` is the chooser's when the epoch began.
    """

    samples: list[Sample]
    share: float
    shuffle: bool
    epoch: int = -1
    stage: int = 0
    cursor: int = 0
    order: Sequence[int] = ()
    chosen: bool = False
    ended: bool = False

    @property
    def key(self) -> str:
        return self.samples[0].task

    def state(self) -> dict[str, Any]:
        """Where it stands, as JSON data; an order that the seed gives back is left out."""
        return {
            "size": len(self.samples),
            "epoch": self.epoch,
            "stage": self.stage,
            "cursor": self.cursor,
            "order": [int(i) for i in self.order] if self.chosen else None,
            "ended": self.ended,
        }


class PromptStream:
    """Draws samples for ever: each source epoch by epoch in its own seeded order.

    `draw` depends on the seed, on what was drawn before and on what a chooser decides, and on
    nothing else; `state` is all that a resumed run needs to go on with the same samples.
    """

    def __init__(self, sources: Sequence[tuple[Sequence[Sample], float, bool]], seed: int) -> None:
        self._sources = [_Source(list(s), share, shuffle) for s, share, shuffle in sources]
        self._seed = seed
        self._due = [0.0] * len(self._sources)
        self._by_id = {s.id: s for source in self._sources for s in source.samples}

    def __len__(self) -> int:
        return sum(len(source.samples) for source in self._sources)

    def find(self, sample_id: str) -> Sample:
        """Return the sample with an id; one that is not in the data raises DataError."""
        if sample_id not in self._by_id:
            raise DataError(f"sample '{sample_id}' is no longer in the data of this run")
        return self._by_id[sample_id]

    def draw(self, count: int, chooser: Chooser | None = None) -> list[Sample]:
        """Take the next samples, fewer only where every source has ended.

        Sources take turns so that their shares hold at any time.
        """
        return list(itertools.islice(self._drawn(chooser), count))

    def peek(self, count: int, chooser: Chooser | None = None) -> list[Sample]:
        """What the next draw of `count` would give now, without taking it."""
        sources, due = [replace(source) for source in self._sources], list(self._due)
        coming = self.draw(count, chooser)
        self._sources, self._due = sources, due
        return coming

    def _drawn(self, chooser: Chooser | None) -> Iterator[Sample]:
        while live := [i for i, source in enumerate(self._sources) if not source.ended]:
            index = self._turn(live, chooser)
            source = self._sources[index]
            stage = chooser.stage() if chooser else source.stage
            if source.cursor == len(source.order) or source.stage != stage:
                source.stage = stage
                self._begin_epoch(index, chooser)
            if not source.ended:
                source.cursor += 1
                yield source.samples[source.order[source.cursor - 1]]

    def _turn(self, live: Sequence[int], chooser: Chooser | None) -> int:
        """Whose turn it is: every source earns its share, the one that is owed most pays 1."""
        shares = [self._sources[i].share for i in live]
        if chooser is not None:
            keys = [self._sources[i].key for i in live]
            mixed = chooser.mix(dict(zip(keys, shares, strict=True)))
            shares = [mixed[key] for key in keys]
        for i, share in zip(live, shares, strict=True):
            self._due[i] += share / sum(shares)
        # Rounded, so that equal claims stay equal: the first of them goes first.
        turn = max(live, key=lambda i: (round(self._due[i], 9), -i))
        self._due[turn] -= 1
        return turn

    def _begin_epoch(self, index: int, chooser: Chooser | None) -> None:
        source = self._sources[index]
        source.epoch, source.cursor = source.epoch + 1, 0
        rng = np.random.default_rng([self._seed, index, source.epoch, 0xC4])
        order = chooser.epoch(source.samples, source.epoch, rng) if chooser else None
        source.chosen = order is not None
        source.order = self._order(index) if order is None else order
        source.ended = not source.order

    def _order(self, index: int) -> Sequence[int]:
        source = self._sources[index]
        if not source.shuffle:
            return range(len(source.samples))
        rng = np.random.default_rng([self._seed, index, source.epoch])
        return [int(i) for i in rng.permutation(len(source.samples))]

    def state(self) -> Mapping[str, Any]:
        """Where every source stands, as JSON data."""
        return {"due": self._due, "sources": [source.state() for source in self._sources]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`; data that changed in size since then raises DataError."""
        saved = state["sources"]
        sizes = [len(s.samples) for s in self._sources]
        if [s["size"] for s in saved] != sizes:
            raise DataError("the data changed since the checkpoint: resume needs the same records")
        self._due = list(state["due"])
        for index, (source, values) in enumerate(zip(self._sources, saved, strict=True)):
            source.epoch, source.cursor = values["epoch"], values["cursor"]
            source.stage = values.get("stage", 0)
            source.ended, source.chosen = values["ended"], values["order"] is not None
            if source.epoch >= 0:
                source.order = values["order"] if source.chosen else self._order(index)
