"""Prompts before anything is decoded: each runs once, and its keys are kept for its responses.

What of a prompt was fed before, a turn ago, is not fed again (`prefix_cache`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mmrl.engines.ongoing import Ongoing
from mmrl.policy.prompts import Prompts
from mmrl.policy.recurrent import Memory, Mixer
from mmrl.policy.shared_prefix import SharedPrefix
from mmrl.policy.tiles import Run, batches
from mmrl.types import Ints

SPARE_TOKENS = 4096
"""Padding of prompts that is not worth a second table."""


@dataclass(frozen=True)
class PromptKeys:
    """Prompts of like lengths: keys and values [P, K, L, D] by layer, padded with zeros."""

    numbers: Ints
    lengths: Ints
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    def remember(self, layer: int, at: Where, key: Tensor, value: Tensor) -> None:
        """Take over a layer's keys and values [N, K, D] of some prompts' tokens."""
        for cache, new in ((self.keys, key), (self.values, value)):
            if layer not in cache:
                size = len(self.numbers), new.shape[1], int(self.lengths.max()), new.shape[2]
                cache[layer] = new.new_zeros(size)
            cache[layer].transpose(1, 2)[at.prompt, at.place] = new[at.flat]

    def chosen(self, places: Ints, device: torch.device) -> PromptKeys:
        """Some of the prompts, no longer than they are."""
        kept, lengths = torch.from_numpy(places).to(device), self.lengths[places]
        longest = int(lengths.max())
        keys, values = (
            {layer: rows[kept][:, :, :longest].contiguous() for layer, rows in cache.items()}
            for cache in (self.keys, self.values)
        )
        return PromptKeys(self.numbers[places], lengths, keys, values)


@dataclass(frozen=True)
class Where:
    """Flat tokens [N] of a pass, and the prompt of a table and the place in it that each has."""

    flat: Tensor
    prompt: Tensor
    place: Tensor


class Prefill:
    """Prompts attend causally to themselves; what decoding needs of them is remembered by layer."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._memories: dict[int, list[Memory]] = {}
        self._passed: list[Ints] = []
        groups = [sorted(group) for group in batches(lengths, spare=SPARE_TOKENS)]
        sizes = np.array(lengths)
        self.prompts = [PromptKeys(np.array(group), sizes[group]) for group in groups]

    def part(self, rows: SharedPrefix | Ongoing, numbers: Ints) -> Pass:
        """The layout of a pass over the prompts numbered so [P], ascending."""
        self._passed.append(numbers)
        whole = [(run,) for run in rows.prompts]
        pieces = rows.pieces if isinstance(rows, Ongoing) else whole
        return Pass(rows, self._places(pieces, numbers, rows.ids.device), self._memories)

    def take(self, ran: Prompts, numbers: Ints) -> None:
        """Remember what the prompts numbered so [P] ended with, which ran before."""
        part = self.part(ran.rows, numbers)
        for layer, key in ran.keys.items():
            for prompts, at in part.places:
                prompts.remember(layer, at, key.detach(), ran.values[layer].detach())
        for layer, memory in ran.memories.items():
            self._memories.setdefault(layer, []).append(memory.mapped(torch.Tensor.detach))

    def memories(self, owners: Ints) -> dict[int, Memory]:
        """By recurrent layer: what each response starts from, `owners` [S] being its prompt."""
        stands = np.argsort(np.concatenate(self._passed))
        found = {layer: Memory.joined(parts) for layer, parts in self._memories.items()}
        return {layer: memory.chosen(stands[owners]) for layer, memory in found.items()}

    def _places(
        self, pieces: Sequence[Sequence[Run]], numbers: Ints, device: torch.device
    ) -> list[tuple[PromptKeys, Where]]:
        """Where a pass has each prompt's tokens, which are those of its pieces in order."""
        found = []
        for prompts in self.prompts:
            here = np.flatnonzero(np.isin(prompts.numbers, numbers))
            if not len(here):
                continue
            asked = np.searchsorted(numbers, prompts.numbers[here])
            flat = [np.concatenate([run.places for run in pieces[i]]) for i in asked]
            sizes = [len(places) for places in flat]
            arrays = (
                np.concatenate(flat),
                np.repeat(here, sizes),
                np.concatenate([np.arange(size) for size in sizes]),
            )
            found.append((prompts, Where(*(torch.from_numpy(a).to(device) for a in arrays))))
        return found


@dataclass(frozen=True)
class Pass:
    """One of the passes that prefill is made of: over whole prompts, or what is new in some."""

    rows: SharedPrefix | Ongoing
    places: Sequence[tuple[PromptKeys, Where]]
    memories: dict[int, list[Memory]]

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None = None,
    ) -> Tensor:
        """Attend [N, H, D] as the training rows do, and keep keys and values, old ones as well."""
        if isinstance(self.rows, Ongoing):
            key, value = self.rows.behind(layer, key, value)
        for prompts, at in self.places:
            prompts.remember(layer, at, key, value)
        return self.rows.attend(layer, query, key, value, scale, window)

    def recur(self, layer: int, mixer: Mixer, hidden: Tensor) -> Tensor:
        """Recur [1, N, H] as the training rows do, and keep what the prompts end with."""
        if isinstance(self.rows, Ongoing):
            out, memory = self.rows.recur(layer, mixer, hidden)
        else:
            out, memory = self.rows.recurrence.run(mixer, hidden)
        self.memories.setdefault(layer, []).append(memory)
        return out
