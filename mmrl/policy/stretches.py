"""Beginnings that answers to a prompt share: equal turns behind equal turns stand once.

    answer 1   [turn 1][screen][turn 2][screen'][turn 3 ]
    answer 2   [turn 1][screen][turn 2'][screen]             -> [turn 1][screen] for both, then what
    answer 3   [turn 1][screen][turn 2][screen'][turn 3']       each has, one behind the other

What an answer is made of are turns and what is shown between them. Two are equal with the same
tokens at the same places, the same media and the same blocks, behind equal ones: then all that a
causal model makes of them is equal too, and what flows back into them adds up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrl.types import Bools, EncodedMedium, Ints, Observed


@dataclass(frozen=True)
class Answer:
    """A response's token ids [T] behind the prompt numbered `owner`, whose first is at `start`.

    `own` are its media and places, `written` [T] the tokens that the model wrote, None for all.
    """

    owner: int
    start: float
    ids: Ints
    own: Observed | None = None
    written: Bools | None = None

    @property
    def fed(self) -> int:
        """Tokens that are inputs: nothing is predicted from the last one."""
        return max(len(self.ids) - 1, 0)

    def places(self, begin: int, end: int) -> npt.NDArray[Any]:
        """Positions [axes or 1, n] of tokens [begin, end)."""
        if self.own is not None:
            return self.own.positions[:, begin:end]
        places: npt.NDArray[Any] = self.start + np.arange(begin, end)[None]
        return places

    def blocks(self, begin: int, end: int) -> Ints | None:
        """The numbers of blocks [n] of tokens [begin, end)."""
        blocks = None if self.own is None else self.own.blocks
        return None if blocks is None else blocks[begin:end]


@dataclass(frozen=True)
class Unit:
    """Tokens [start, stop) of an answer: a turn, or what is shown before one, with its media."""

    start: int
    stop: int
    media: tuple[EncodedMedium, ...]
    content: Hashable

    @property
    def size(self) -> int:
        return self.stop - self.start


def units(answer: Answer) -> list[Unit]:
    """What the fed tokens of an answer are made of, in order."""
    fed, found, turn = answer.fed, [], 0
    written = np.ones(fed, dtype=bool) if answer.written is None else answer.written[:fed]
    edges = [0, *(np.flatnonzero(np.diff(written)) + 1).tolist(), fed]
    for start, stop in pairwise(edges if fed else []):
        media = () if written[start] else _shown_before(turn, answer.own)
        turn += bool(written[start])
        found.append(Unit(start, stop, media, _content(answer, start, stop, media)))
    return found


def _shown_before(turn: int, own: Observed | None) -> tuple[EncodedMedium, ...]:
    if own is None:
        return ()
    return tuple(m for m, shown in zip(own.media, own.turns, strict=True) if shown == turn)


def _content(
    answer: Answer, start: int, stop: int, media: Sequence[EncodedMedium]
) -> tuple[Hashable, ...]:
    """All that the trunk sees of some tokens, and where: equal for those that may stand once."""
    places, blocks = answer.places(start, stop), answer.blocks(start, stop)
    onward = answer.start + np.arange(start, stop)
    return (
        answer.ids[start:stop].tobytes(),
        b"" if (places == onward).all() else places.astype(float).tobytes(),
        tuple((medium.kind, medium.hash) for medium in media),
        None if blocks is None else blocks.tobytes(),
    )


@dataclass
class Beginnings:
    """Which answers to one prompt begin alike, as far as they have been added."""

    _known: dict[tuple[int, Hashable], int] = field(default_factory=dict)

    def add(self, made_of: Sequence[Unit]) -> tuple[tuple[int, ...], int]:
        """The number of each of an answer's units, equal for equal ones; the tokens of new ones."""
        path: list[int] = []
        new = 0
        for unit in made_of:
            key = path[-1] if path else -1, unit.content
            if key not in self._known:
                self._known[key] = len(self._known)
                new += unit.size
            path.append(self._known[key])
        return tuple(path), new


@dataclass(frozen=True)
class Stretch:
    """Tokens [start, stop) of an answer that are fed once, for all answers that begin like it.

    `media` stand in the order of their placeholders; `behind` are the numbers of the stretches
    between the prompt and this one, in order.
    """

    answer: Answer
    start: int
    stop: int
    media: tuple[EncodedMedium, ...]
    behind: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return self.stop - self.start


Paths = list[tuple[int, ...]]
"""The numbers of the stretches that each answer consists of."""


def apart(answers: Sequence[Answer]) -> tuple[list[Stretch], Paths]:
    """One stretch for each answer, whatever they share."""
    whole = [Stretch(a, 0, a.fed, () if a.own is None else a.own.media) for a in answers]
    return whole, [(number,) for number in range(len(whole))]


def together(answers: Sequence[Answer]) -> tuple[list[Stretch], Paths]:
    """Stretches that stand once, whichever answers begin alike."""
    made_of = [units(answer) for answer in answers]
    begun: dict[int, Beginnings] = {}
    walks = []
    for answer, parts in zip(answers, made_of, strict=True):
        path, _ = begun.setdefault(answer.owner, Beginnings()).add(parts)
        walks.append([(answer.owner, unit) for unit in path])
    passing = Counter(place for walk in walks for place in walk)
    found: list[Stretch] = []
    known: dict[tuple[int, int], int] = {}
    paths: Paths = []
    for answer, parts, walk in zip(answers, made_of, walks, strict=True):
        behind: tuple[int, ...] = ()
        steps = zip(walk, parts, strict=True)
        # Units that the same answers pass are one stretch.
        for _, run in groupby(steps, key=lambda step: passing[step[0]]):
            places, own = zip(*run, strict=True)
            if places[0] not in known:
                known[places[0]] = len(found)
                media = tuple(medium for unit in own for medium in unit.media)
                found.append(Stretch(answer, own[0].start, own[-1].stop, media, behind))
            behind = (*behind, known[places[0]])
        paths.append(behind)
    return found, paths
