"""Records -> a resumable stream of samples, mixed from several sources, bad ones in quarantine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmrl import plugins
from mmrl.config import DataConfig
from mmrl.errors import UserError
from mmrl.task import Task
from mmrl.types import Sample

Reject = Callable[[str, str], None]
"""Called with (sample id, reason) for every record that cannot be asked."""


def load_samples(
    task: Task, path: Path, key: str, reject: Reject, limit: int | None = None
) -> list[Sample]:
    """Ask every record of a file; a gold that does not parse goes to `reject`, with its reason.

    `key` replaces the task's name in the samples, so that scores find their source's settings.
    Raises UserError if no sample is left or two records share an id.
    """
    samples: dict[str, Sample] = {}
    for record in itertools.islice(task.records(path), limit):
        try:
            sample = replace(task.sample(record), task=key)
        except (ValueError, KeyError, TypeError) as error:
            reject(record.id, f"{type(error).__name__}: {error}")
            continue
        if sample.id in samples:
            raise UserError(f"{path}: two records have the id '{sample.id}'")
        samples[sample.id] = sample
    if not samples:
        raise UserError(f"{path}: no usable record for task '{key}'; see quarantine.jsonl")
    return list(samples.values())


def build_missing(source: DataConfig) -> bool:
    """Run the source's recipe if its file is missing; True if it ran."""
    if source.path.exists() or source.recipe is None:
        return False
    plugins.load("recipe", source.recipe.name).build(None, source.recipe.out)
    return True


@dataclass
class _Source:
    samples: list[Sample]
    share: float
    shuffle: bool
    epoch: int = 0
    cursor: int = 0
    order: Sequence[int] = ()


class PromptStream:
    """Draws samples for ever: each source epoch by epoch in its own seeded order.

    `draw` depends on the seed and on what was drawn before, and on nothing else; `state` is all
    that a resumed run needs to go on with the same samples.
    """

    def __init__(self, sources: Sequence[tuple[Sequence[Sample], float, bool]], seed: int) -> None:
        self._sources = [_Source(list(s), share, shuffle) for s, share, shuffle in sources]
        self._seed = seed
        self._drawn = [0.0] * len(self._sources)

    def __len__(self) -> int:
        return sum(len(source.samples) for source in self._sources)

    def draw(self, count: int) -> list[Sample]:
        """Take the next samples; sources take turns so that their shares hold at any time."""
        return [self._next(self._turn()) for _ in range(count)]

    def peek(self, count: int) -> list[Sample]:
        """What the next draw of `count` will give, without taking it."""
        sources, drawn = [replace(source) for source in self._sources], list(self._drawn)
        coming = self.draw(count)
        self._sources, self._drawn = sources, drawn
        return coming

    def _turn(self) -> int:
        served = [d / s.share for d, s in zip(self._drawn, self._sources, strict=True)]
        turn = int(np.argmin(served))
        self._drawn[turn] += 1
        return turn

    def _next(self, index: int) -> Sample:
        source = self._sources[index]
        if source.cursor == len(source.samples):
            source.epoch, source.cursor, source.order = source.epoch + 1, 0, ()
        if not source.order:
            source.order = self._order(index, source)
        source.cursor += 1
        return source.samples[source.order[source.cursor - 1]]

    def _order(self, index: int, source: _Source) -> Sequence[int]:
        if not source.shuffle:
            return range(len(source.samples))
        rng = np.random.default_rng([self._seed, index, source.epoch])
        return [int(i) for i in rng.permutation(len(source.samples))]

    def state(self) -> Mapping[str, Any]:
        """Where every source stands, as JSON data."""
        return {
            "drawn": self._drawn,
            "sources": [
                {"epoch": s.epoch, "cursor": s.cursor, "size": len(s.samples)}
                for s in self._sources
            ],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`; data that changed in size since then raises UserError."""
        saved = state["sources"]
        sizes = [len(s.samples) for s in self._sources]
        if [s["size"] for s in saved] != sizes:
            raise UserError("the data changed since the checkpoint: resume needs the same records")
        self._drawn = list(state["drawn"])
        for source, values in zip(self._sources, saved, strict=True):
            source.epoch, source.cursor, source.order = values["epoch"], values["cursor"], ()
