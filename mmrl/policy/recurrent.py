"""Recurrent layers over rows that share their prompt: once over it, then over each response.

A layer of transformers asks a cache for what it remembers; `Memory` answers in a cache's words, but
hands out and keeps the tensors themselves, so that gradients flow through what a prompt ended with.
`Recurrence` cuts a row into sequences and calls the layer's own forward on them: prompts from
nothing, responses from their prompt's memory. No layer's formula is written down here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrl.policy.tiles import SLACK, Run, batches
from mmrl.types import Ints


class Memory:
    """What one recurrent layer remembers of some sequences [B, ...], in the shape of a cache.

    `real` [B, T] marks the tokens of the next call that are no padding. Of the others nothing
    enters the convolution, not even a bias.
    """

    record_past = True  # keeps a layer off its one-token convolution, which works in place

    def __init__(
        self, conv: Tensor | None = None, state: Tensor | None = None, real: Tensor | None = None
    ) -> None:
        self.conv_states, self.recurrent_states = [conv], [state]
        self._real = real

    @property
    def layers(self) -> Memory:
        """The one layer, by whatever number it is asked for."""
        return self

    def __getitem__(self, layer: int) -> Memory:
        return self

    def has_previous_state(
        self, layer_idx: int | None = None, state_idx: int | None = None
    ) -> bool:
        """Whether something was remembered before."""
        return self.conv_states[0] is not None

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The last inputs of a convolution [B, C, K - 1]; None where nothing was remembered."""
        return self.conv_states[state_idx]

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The state [B, ...] after the last token; None where nothing was remembered."""
        return self.recurrent_states[state_idx]

    def is_recording_past(self, layer_idx: int) -> bool:
        """As `record_past`, of the one layer."""
        return self.record_past

    def update_conv_state(
        self, new: Tensor, layer_idx: int, state_idx: int = 0, *, conv_kernel_size: int, **_: Any
    ) -> Tensor:
        """Remember the last inputs of a convolution; all it looks at, [B, C, K - 1 + T]."""
        if self._real is not None:
            new = new * self._real[:, None].to(new.dtype)
        before, kept = self.conv_states[state_idx], conv_kernel_size - 1
        if before is None:
            before = new.new_zeros(*new.shape[:-1], kept)
        whole = torch.cat([before, new], dim=-1)
        self.conv_states[state_idx] = whole[..., whole.shape[-1] - kept :]
        return whole

    def update_recurrent_state(
        self, new: Tensor, layer_idx: int, state_idx: int = 0, **_: Any
    ) -> Tensor:
        """Remember the state after the last token."""
        self.recurrent_states[state_idx] = new
        return new

    def of(self, rows: Tensor) -> Memory:
        """The memory of these sequences, of one as often as it is named."""
        return Memory(*(None if s is None else _rows(s, rows) for s in self._states))

    def chosen(self, rows: Ints) -> Memory:
        """As `of`, of rows that are not on the device yet."""
        conv = self.conv_states[0]
        assert conv is not None
        return self.of(_sent(rows, conv.device))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Memory:
        """The memory with its states changed."""
        return Memory(*(None if s is None else change(s) for s in self._states))

    @property
    def _states(self) -> tuple[Tensor | None, Tensor | None]:
        return self.conv_states[0], self.recurrent_states[0]

    @staticmethod
    def joined(parts: Sequence[Memory]) -> Memory:
        """The sequences of several memories, one after the other."""
        conv, state = zip(*(part._states for part in parts), strict=True)
        return Memory(*(None if s[0] is None else torch.cat(s) for s in (conv, state)))


Mixer = Callable[[Tensor, Memory, Tensor | None], Tensor]
"""A layer's own forward: hidden [B, T, H], a memory that it goes on from and leaves its own in, and
which tokens are no padding [B, T], None for all."""


class Padded:
    """Runs of like lengths as one batch [B, T], padded on one side."""

    def __init__(
        self, runs: Sequence[Run], left: bool, device: torch.device, least: int = 1
    ) -> None:
        sizes = np.array([run.size for run in runs])
        longest = max(int(sizes.max()), least)
        place = np.arange(longest) - (longest - sizes[:, None] if left else 0)
        real = (place >= 0) & (place < sizes[:, None])
        starts = np.array([run.start for run in runs])[:, None]
        self._index = _sent(starts + place.clip(0, sizes[:, None] - 1), device)
        self._real = None if real.all() else _sent(real, device)
        self.flat, self.padded = (starts + place)[real], np.flatnonzero(real)
        self.size = real.size

    def mixed(self, mixer: Mixer, flat: Tensor, memory: Memory, masked: bool) -> Tensor:
        """Run a layer on these tokens of [N, H] -> [B * T, H]."""
        mask = self._real.long() if masked and self._real is not None else None
        return mixer(flat[self._index], memory, mask).flatten(0, 1)

    def memory(self) -> Memory:
        """Nothing, for tokens that are padded in front."""
        return Memory(real=self._real)


class Recurrence:
    """The sequences of a row, in batches of like lengths that pad little.

    Prompts are padded in front, where nothing is remembered: padding behind makes one forget.
    Responses are padded behind, and are two tokens long at least: one token alone takes kernels
    that work in place or have no backward. A prompt with its only response is one sequence.
    """

    def __init__(
        self, prompts: Sequence[Run], responses: Sequence[Run], owner: Ints, device: torch.device
    ) -> None:
        alone = np.bincount(owner, minlength=len(prompts)) == 1
        firsts = list(prompts)
        for run, own in zip(responses, owner, strict=True):
            if alone[own]:
                firsts[own] = Run(prompts[own].start, run.stop)
        later = [i for i, run in enumerate(responses) if run.size and not alone[owner[i]]]
        first_groups = batches([run.size for run in firsts])
        later_groups = [
            [later[i] for i in group] for group in batches([responses[i].size for i in later])
        ]
        remembered = np.argsort(np.concatenate(first_groups))  # where each prompt's memory stands
        self._firsts = [Padded([firsts[i] for i in g], True, device) for g in first_groups]
        self._later = [
            Padded([responses[i] for i in g], False, device, least=2) for g in later_groups
        ]
        self._owners = [_sent(owner[g], device) for g in later_groups]
        self._remembered = _sent(remembered, device)
        self._order = _sent(_order([*self._firsts, *self._later]), device)
        self.least = 0

    @property
    def calls(self) -> int:
        """How often a layer's forward is called, unless `least` is more."""
        return len(self._firsts) + len(self._later)

    def run(self, mixer: Mixer, hidden: Tensor) -> tuple[Tensor, Memory]:
        """Run a layer on flat tokens [1, N, H]; also what it remembers of each prompt.

        Of a prompt with one response, that is what it remembers after that one.
        """
        flat, memories, outputs = hidden[0], [], []
        for batch in self._firsts:
            memories.append(batch.memory())
            outputs.append(batch.mixed(mixer, flat, memories[-1], masked=True))
        memory = Memory.joined(memories).of(self._remembered)
        for batch, owners in zip(self._later, self._owners, strict=True):
            outputs.append(batch.mixed(mixer, flat, memory.of(owners), masked=False))
        out = torch.cat(outputs).index_select(0, self._order)
        for _ in range(self.least - self.calls):
            out = out + 0.0 * mixer(hidden[:, :2], Memory(), None).sum()
        return out[None], memory


class Continuation:
    """Responses [S] alone, in batches of like lengths, each from what is remembered of its owner.

    They are padded as `Recurrence` pads them. Where lengths are `alike` in a batch nothing is, and
    what is remembered afterwards can be read.
    """

    def __init__(
        self,
        responses: Sequence[Run],
        owner: Ints,
        device: torch.device,
        *,
        alike: bool = False,
    ) -> None:
        fed = [i for i, run in enumerate(responses) if run.size]
        slack, least = (1.0, 1) if alike else (SLACK, 2)
        groups = [[fed[i] for i in g] for g in batches([responses[i].size for i in fed], slack)]
        self._parts = [Padded([responses[i] for i in g], False, device, least) for g in groups]
        self._owners = [_sent(owner[g], device) for g in groups]
        self._order = _sent(_order(self._parts), device)
        self._stand = np.argsort(np.concatenate([np.zeros(0, dtype=np.int64), *groups]))

    def run(self, mixer: Mixer, hidden: Tensor, memory: Memory) -> Tensor:
        """Run a layer on flat tokens [1, N, H] behind the `memory` of every owner."""
        return self._mixed(mixer, hidden, [memory.of(owners) for owners in self._owners])

    def run_on(self, mixer: Mixer, hidden: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """As `run`; also what the layer remembers of each response, which has lengths alike."""
        memories = [memory.of(owners) for owners in self._owners]
        out = self._mixed(mixer, hidden, memories)
        return out, Memory.joined(memories).chosen(self._stand)

    def _mixed(self, mixer: Mixer, hidden: Tensor, memories: Sequence[Memory]) -> Tensor:
        outputs = [
            part.mixed(mixer, hidden[0], memory, masked=False)
            for part, memory in zip(self._parts, memories, strict=True)
        ]
        return torch.cat(outputs).index_select(0, self._order)[None]


def _order(groups: Sequence[Padded]) -> Ints:
    """Where each flat token's output stands among those of all batches."""
    starts = np.cumsum([0, *(batch.size for batch in groups)])
    order = np.empty(sum(len(batch.flat) for batch in groups), dtype=np.int64)
    for start, batch in zip(starts, groups, strict=False):
        order[batch.flat] = start + batch.padded
    return order


def _rows(state: Tensor, rows: Tensor) -> Tensor:
    """Rows of a state; what flows back into one is added up in the same order each time."""
    return state[rows] if state.is_cuda else state.index_select(0, rows)


def _sent(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
