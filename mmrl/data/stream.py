"""Records -> a resumable stream of samples, mixed from several sources, bad ones in quarantine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from mmrl import plugins
from mmrl.corpus.table import missing
from mmrl.data.samples import Samples, Unusable
from mmrl.data_config import DataConfig
from mmrl.errors import DataError
from mmrl.types import Ints, Sample


def build_missing(source: DataConfig) -> bool:
    """Run the source's recipe if its file is missing; True if it ran."""
    if source.recipe is None or not missing(source.path):
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


def distinct_ids(sources: Mapping[str, Samples]) -> dict[str, Samples]:
    """Put each source's key before its ids where sources share one: a run knows samples by id."""
    hashes = np.concatenate([samples.hashes for samples in sources.values()])
    if len(np.unique(hashes)) == len(hashes):
        return dict(sources)
    return {key: samples.under(f"{key}/") for key, samples in sources.items()}


@dataclass
class _Source:
    """`order` is that of the current epoch; `chosen` where a chooser made it; `ended` for good.

    `stage` is the chooser's when the epoch began.
    """

    samples: Sequence[Sample]
    share: float
    shuffle: bool
    epoch: int = -1
    stage: int = 0
    cursor: int = 0
    order: Sequence[int] | Ints = ()
    chosen: bool = False
    ended: bool = False

    @property
    def key(self) -> str:
        return self.samples.key if isinstance(self.samples, Samples) else self.samples[0].task

    def find(self, sample_id: str) -> Sample | None:
        """Its sample with an id; None without one."""
        if isinstance(self.samples, Samples):
            return self.samples.find(sample_id)
        return next((s for s in self.samples if s.id == sample_id), None)

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
    nothing else; `state` is all that a resumed run needs to go on with the same samples. Records
    that prove to be no use when they are drawn are passed over.
    """

    def __init__(self, sources: Sequence[tuple[Sequence[Sample], float, bool]], seed: int) -> None:
        self._sources = [_Source(*source) for source in sources]
        self._seed = seed
        self._due = [0.0] * len(self._sources)

    def __len__(self) -> int:
        return sum(len(source.samples) for source in self._sources)

    def find(self, sample_id: str) -> Sample:
        """Return the sample with an id; one that is not in the data raises DataError."""
        for source in self._sources:
            if (found := source.find(sample_id)) is not None:
                return found
        raise DataError(f"sample '{sample_id}' is no longer in the data of this run")

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
        passed_over = 0
        while live := [i for i, source in enumerate(self._sources) if not source.ended]:
            index = self._turn(live, chooser)
            source = self._sources[index]
            stage = chooser.stage() if chooser else source.stage
            if source.cursor == len(source.order) or source.stage != stage:
                source.stage = stage
                self._begin_epoch(index, chooser)
            if not source.ended:
                source.cursor += 1
                try:
                    sample = source.samples[int(source.order[source.cursor - 1])]
                except Unusable as error:
                    passed_over += 1
                    if passed_over > len(self):
                        raise DataError(f"no record that is drawn is of use: {error}") from None
                    continue
                passed_over = 0
                yield sample

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
        source.ended = not len(source.order)

    def _order(self, index: int) -> Sequence[int] | Ints:
        source = self._sources[index]
        if not source.shuffle:
            return range(len(source.samples))
        rng = np.random.default_rng([self._seed, index, source.epoch])
        return rng.permutation(len(source.samples))

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
