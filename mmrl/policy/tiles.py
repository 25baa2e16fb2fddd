"""Who sees whom among flat tokens, cut into tiles that need no mask.

    triangle   as many keys as queries: a query sees the keys up to its own place
    turned     as many keys as queries: a query sees the keys from its own place on
    rectangle  every query sees every key

A sliding window of w is a band, and a band is triangles along its upper edge, turned ones along
its lower edge and rectangles between: in chunks of w, a token sees the earlier ones of its chunk
and the later ones of the chunk before. A block that sees itself both ways is a turned triangle on
top of what is causal. Whatever the lengths, the tiles' indices are linear in the tokens; nothing is
quadratic, and nothing is repeated for each response of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mmrl.types import Ints

SLACK = 1.25
"""Padded tokens of a batch of triangles, at most, by the tokens in it."""


@dataclass(frozen=True)
class Run:
    """Flat tokens [start, stop)."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    @property
    def places(self) -> Ints:
        """Places [size] in the flat row."""
        return np.arange(self.start, self.stop)


@dataclass
class Tiles:
    """The tiles of some sequences, in rounds: within one, a query stands in one tile at most.

    `own` covers every token once, as a query and as a key. `turned` and `blocks` are pairs of
    queries and keys. `whole` holds the queries that see all of a run of keys.
    """

    own: list[Run] = field(default_factory=list)
    turned: list[tuple[Run, Run]] = field(default_factory=list)
    blocks: list[tuple[Run, Run]] = field(default_factory=list)
    whole: dict[Run, list[Run]] = field(default_factory=dict)

    def itself(self, run: Run, window: int | None) -> None:
        """Let a run see itself causally, at most `window` tokens with the one that looks."""
        step = window or max(run.size, 1)
        before = None
        for start in range(run.start, run.stop, step):
            chunk = Run(start, min(start + step, run.stop))
            self.own.append(chunk)
            if before is not None:
                self.behind(chunk, before, window)
            before = chunk

    def behind(self, run: Run, keys: Run, window: int | None, gap: int = 0) -> None:
        """Let a run see the keys before it, at most `window` tokens with the one that looks.

        Token i of the run is i + 1 from the last key, and as many more as there are in the `gap`.
        """
        window = None if window is None else window - gap
        everything = run.size if window is None else min(max(window - keys.size, 0), run.size)
        self._whole(Run(run.start, run.start + everything), keys)
        if window is None:
            return
        queries = Run(run.start + everything, run.start + min(run.size, window - 1))
        if queries.size > 0:
            edge = keys.stop + everything - (window - 1)
            self.turned.append((queries, Run(edge, edge + queries.size)))
            self._whole(queries, Run(edge + queries.size, keys.stop))

    def both_ways(self, run: Run) -> None:
        """Let the tokens of a run see what comes after them in it too."""
        if run.size > 1:
            self.blocks.append((Run(run.start, run.stop - 1), Run(run.start + 1, run.stop)))

    def _whole(self, queries: Run, keys: Run) -> None:
        if queries.size > 0 and keys.size > 0:
            self.whole.setdefault(keys, []).append(queries)


def runs_of(blocks: Ints, start: int) -> list[Run]:
    """The runs of one number above 0 in `blocks` [L], as flat tokens from `start` on."""
    edges = np.flatnonzero(np.diff(blocks, prepend=0, append=0))
    pairs = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    runs = [(blocks[a], Run(start + a, start + b)) for a, b in pairs if blocks[a] > 0]
    assert len({number for number, _ in runs}) == len(runs), "a block is one run of tokens"
    return [run for _, run in runs]


def batches(sizes: Sequence[int], slack: float = SLACK, spare: int = 0) -> list[list[int]]:
    """Indices of like sizes, largest first, so that padding adds little.

    In each batch as many times the largest as there are members is at most `slack` times their
    sum, and `spare` more.
    """
    found: list[list[int]] = []
    largest = total = 0
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        padded = (len(found[-1]) + 1) * largest if found else 0
        if not found or padded > slack * (total + sizes[i]) + spare:
            found.append([])
            largest = total = 0
        largest = largest or sizes[i]
        found[-1].append(i)
        total += sizes[i]
    return found
