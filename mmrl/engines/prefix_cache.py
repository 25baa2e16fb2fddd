"""What was fed before, found again by its content: a turn goes on from the turn before it.

It holds as long as the weights stay as they are (`Still`). What is found is a rounding away from
what a pass over the whole would give, as what is decoded is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmrl.engines.ongoing import Fed
from mmrl.types import Ints, Prompt

MAX_TOKENS = 131_072
"""Tokens that are kept before the oldest are let go: 7.5 GiB of a model of 7B."""
LOOKED_AT = 32
"""Tokens at an end by which it is looked for, before all are compared."""


@dataclass(frozen=True)
class _Entry:
    prompt: Prompt
    fed: Fed

    @property
    def end(self) -> Hashable:
        return _end(self.prompt.ids, self.fed.size)

    def begins(self, prompt: Prompt) -> bool:
        """Whether a prompt begins with all that was fed, at the same places."""
        size, media = self.fed.size, self.fed.media
        return (
            len(prompt.ids) > size
            and np.array_equal(prompt.ids[:size], self.prompt.ids[:size])
            and np.array_equal(prompt.positions[:, :size], self.prompt.positions[:, :size])
            and np.array_equal(_blocks(prompt)[:size], _blocks(self.prompt)[:size])
            and _media(prompt)[:media] == _media(self.prompt)[:media]
        )


@dataclass
class PrefixCache:
    """Beginnings of prompts, at most `room` tokens in all; each is given out once."""

    room: int = MAX_TOKENS
    _kept: list[_Entry] = field(default_factory=list)
    _promised: int = 0

    def promise(self, tokens: int) -> bool:
        """Make room for so many tokens, which are added later; False: others were promised it.

        The oldest are let go for it. Without a promise nothing is to be copied.
        """
        if self._promised + tokens > self.room:
            return False
        self._promised += tokens
        while self._promised + sum(entry.fed.size for entry in self._kept) > self.room:
            self._kept.pop(0)
        return True

    def add(self, prompt: Prompt, fed: Fed) -> None:
        """Keep what was fed of a prompt's beginning, as was promised."""
        self._promised -= fed.size
        self._kept.append(_Entry(prompt, fed))

    def take(self, prompts: Sequence[Prompt]) -> list[Fed | None]:
        """The longest beginning of each prompt that was kept, and not longer; None: there is none.

        Prompts may have one in common.
        """
        by_end: dict[Hashable, list[_Entry]] = {}
        for entry in self._kept:
            by_end.setdefault(entry.end, []).append(entry)
        sizes = sorted({entry.fed.size for entry in self._kept}, reverse=True)
        found = [_longest(prompt, sizes, by_end) for prompt in prompts]
        taken = {id(entry) for entry in found if entry is not None}
        self._kept = [entry for entry in self._kept if id(entry) not in taken]
        return [None if entry is None else entry.fed for entry in found]


def _longest(
    prompt: Prompt, sizes: Sequence[int], by_end: dict[Hashable, list[_Entry]]
) -> _Entry | None:
    for size in sizes:
        for entry in by_end.get(_end(prompt.ids, size), ()):
            if entry.begins(prompt):
                return entry
    return None


def _end(ids: Ints, size: int) -> Hashable:
    return size, ids[max(size - LOOKED_AT, 0) : size].tobytes()


def _blocks(prompt: Prompt) -> Ints:
    return np.zeros(len(prompt.ids), dtype=np.int64) if prompt.blocks is None else prompt.blocks


def _media(prompt: Prompt) -> list[tuple[str, str]]:
    return [(medium.kind, medium.hash) for medium in prompt.placed]
