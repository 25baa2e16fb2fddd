"""What the embedded engine remembers while it samples: prompts once, then token by token.

A prompt's keys and values are kept once for all of its responses; a response keeps only its own, in
memory that grows with what it has written. Recurrent layers remember as much of a long response as
of a short one: each has its own, which starts as its prompt's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mmrl.engines.ongoing import Fed
from mmrl.engines.prefill import Prefill, PromptKeys
from mmrl.policy.recurrent import Memory, Mixer
from mmrl.policy.tiles import batches
from mmrl.types import Bools, Ints

BLOCK = 64
"""Tokens that a response's cache has room for at first, and by which it grows at least."""
SPARE_SEATS = 16
"""Empty seats that are not worth one."""


class Decoding:
    """One new token for each live response [S]: it sees its prompt's keys and its own.

    Responses sit at tables, by prompts of like lengths with about as many responses left.
    """

    def __init__(self, room: int) -> None:
        """Nobody is live yet; responses have at most `room` tokens."""
        self._room, self._live = room, 0
        self._memories: dict[int, Memory] = {}
        self._tables: list[Table] = []

    def join(self, prefill: Prefill, owners: Ints) -> None:
        """Let responses come after those that are live; `owners` [S] are prompts of the prefill."""
        for layer, memory in prefill.memories(owners).items():
            before = [self._memories[layer]] if self._live else []
            self._memories[layer] = Memory.joined([*before, memory])
        for prompts in prefill.prompts:
            rows = np.flatnonzero(np.isin(owners, prompts.numbers))
            if len(rows):
                places = np.searchsorted(prompts.numbers, owners[rows])
                self._tables.append(Table(prompts, self._live + rows, places, self._room))
        self._live += len(owners)

    def advance(self) -> None:
        """Take note that every live response has a token more."""
        for table in self._tables:
            table.length += 1

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None = None,
    ) -> Tensor:
        """Joint softmax over prompt and own keys; query [S, H, D], key [S, K, D], value [S, K, V].

        Each layer has heads and sizes of its own.
        """
        if len(self._tables) == 1:
            (table,) = self._tables
            return table.attend(layer, query, key, value, scale, window)
        out = query.new_empty(*query.shape[:2], value.shape[-1])
        for table in self._tables:
            index = table.index
            own = query[index], key[index], value[index]
            out[index] = table.attend(layer, *own, scale, window)
        return out

    def recur(self, layer: int, mixer: Mixer, hidden: Tensor) -> Tensor:
        """Each live response goes on by its one token; hidden [1, S, H]."""
        return mixer(hidden.transpose(0, 1), self._memories[layer], None).transpose(0, 1)

    def memories(self) -> dict[int, Memory]:
        """What recurrent layers remember now, a copy; to `remember` again."""
        return {layer: memory.mapped(torch.clone) for layer, memory in self._memories.items()}

    def remember(self, memories: dict[int, Memory]) -> None:
        """Go back to what recurrent layers remembered."""
        self._memories = memories

    def fed(self, rows: Ints, media: Ints) -> list[Fed]:
        """What was fed of some live responses, prompts with so many `media` included.

        `rows` [R] are ascending; it is a copy.
        """
        keys: dict[int, dict[int, tuple[Tensor, Tensor]]] = {}
        for table in self._tables:
            keys |= table.fed(rows)
        memories = {layer: memory.chosen(rows) for layer, memory in self._memories.items()}
        found = []
        for place, (row, count) in enumerate(zip(rows.tolist(), media.tolist(), strict=True)):
            own = {layer: memory.chosen(np.array([place])) for layer, memory in memories.items()}
            cached, values = ({n: kv[i] for n, kv in keys[row].items()} for i in (0, 1))
            size = len(next(iter(cached.values())))
            found.append(Fed(size, count, cached, values, own))
        return found

    def keep(self, rows: Ints) -> None:
        """Let go of finished responses; `rows` are the live ones."""
        self._live = len(rows)
        self._memories = {layer: memory.chosen(rows) for layer, memory in self._memories.items()}
        self._tables = [new for table in self._tables for new in table.kept(rows)]

    @property
    def allocated(self) -> int:
        """Bytes of all keys and values."""
        return sum(x.untyped_storage().nbytes() for t in self._tables for x in t.tensors())


class Table:
    """Responses beside their prompts, [P, W] seats in all.

    So a prompt's keys are read once for all of them. A response that has finished leaves its seat
    empty; when half of the seats are no longer needed, the others move together, to several tables
    where some prompts have many responses left and some few.
    """

    def __init__(self, prompts: PromptKeys, rows: Ints, owners: Ints, room: int) -> None:
        self.length = 0
        cache = next(iter(prompts.keys.values()))
        self._device, self._room = cache.device, room
        self._prompts, self._owners = prompts, owners
        self._width, self._seat_of = _seats(owners)
        self._own_keys: dict[int, Tensor] = {}
        self._own_values: dict[int, Tensor] = {}
        self._flat: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        padding = np.arange(prompts.lengths.max()) >= prompts.lengths[:, None]
        hidden = cache.new_zeros(padding.shape)
        self._hidden = hidden.masked_fill(self._sent(padding), float("-inf"))[:, None, None]
        self._lengths = self._sent(prompts.lengths)
        self._place(rows)

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """Attend as `Decoding` says, after the `length` tokens that each has."""
        keys, values, hidden = self._prompt(layer)
        heads = len(keys) // len(self._lengths)
        own_k = self._written(self._own_keys, layer, key)
        own_v = self._written(self._own_values, layer, value)
        if window is not None:
            hidden = self._over_heads(self._beyond(window), heads)

        each = self._seat((query * scale).unflatten(1, (heads, -1)))  # [P K W, R, D]
        together = each.reshape(len(keys), -1, each.shape[-1])  # [P K, W R, D]
        to_prompt = torch.baddbmm(hidden, together, keys)
        to_own = torch.bmm(each, own_k.transpose(1, 2))
        if window is not None and self.length >= window:
            to_own[..., : self.length + 1 - window] = float("-inf")
        longest = keys.shape[-1]
        scores = torch.cat([to_prompt.view(*each.shape[:2], longest), to_own], dim=-1)
        weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
        on_prompt = weights.view(*together.shape[:2], -1)[..., :longest]
        out = torch.bmm(on_prompt, values).view(*each.shape[:2], -1)
        out = torch.baddbmm(out, weights[..., longest:], own_v)
        return self._unseat(out, heads)

    def _prompt(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """A layer's prompts: keys [P K, D, L], values [P K, L, V], what hides padding."""
        if layer not in self._flat:
            key, value = self._prompts.keys[layer], self._prompts.values[layer]
            hidden = self._over_heads(self._hidden, key.shape[1])
            self._flat[layer] = key.flatten(0, 1).transpose(1, 2), value.flatten(0, 1), hidden
        return self._flat[layer]

    def _over_heads(self, hidden: Tensor, heads: int) -> Tensor:
        return hidden.expand(-1, heads, -1, -1).flatten(0, 1)

    def _written(self, caches: dict[int, Tensor], layer: int, new: Tensor) -> Tensor:
        """A layer's cache with the new token in it, [P K W, length + 1, D]."""
        length = self.length
        cache = caches.get(layer)
        if cache is None or cache.shape[1] == length:
            room = min(length + max(BLOCK, length // 2), self._room)
            seats = len(self._lengths) * self._width
            grown = new.new_empty(seats * new.shape[1], room, new.shape[2])
            if cache is not None:
                grown[:, :length] = cache
            cache = caches[layer] = grown
        cache.select(1, length).copy_(self._seat(new))
        return cache.narrow(1, 0, length + 1)

    def _beyond(self, window: int) -> Tensor:
        """`_hidden` with the prompt's tokens that the window has left behind hidden too."""
        place = torch.arange(self._hidden.shape[-1], device=self._device)
        lost = place <= (self._lengths + self.length - window)[:, None]
        return self._hidden.masked_fill(lost[:, None, None], float("-inf"))

    def fed(self, rows: Ints) -> dict[int, dict[int, tuple[Tensor, Tensor]]]:
        """By response, of `rows` those that sit here, and layer: its prompt's keys and its own.

        Also its values; both are [N, K, D].
        """
        here = np.flatnonzero(np.isin(self._rows, rows))
        return {int(self._rows[i]): dict(self._fed(int(i))) for i in here}

    def _fed(self, place: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        owner, seat = int(self._owners[place]), int(self._seat_of[place]) % self._width
        asked = int(self._prompts.lengths[owner])
        for layer in self._prompts.keys:
            both = []
            for prompts, own in (
                (self._prompts.keys[layer], self._own_keys.get(layer)),
                (self._prompts.values[layer], self._own_values.get(layer)),
            ):
                parts = [prompts[owner, :, :asked]]
                if own is not None:
                    by_seat = own.unflatten(0, (len(self._lengths), -1, self._width))
                    parts.append(by_seat[owner, :, seat, : self.length])
                both.append(torch.cat(parts, dim=1).transpose(0, 1).contiguous())
            yield layer, (both[0], both[1])

    def kept(self, rows: Ints) -> Iterator[Table]:
        """The table without finished responses, or those that its responses move to."""
        stays = np.isin(self._rows, rows)
        if not stays.any():
            return
        numbers = np.searchsorted(rows, self._rows[stays])
        self._owners, self._seat_of = self._owners[stays], self._seat_of[stays]
        left = np.bincount(self._owners, minlength=len(self._lengths))
        here = np.flatnonzero(left)
        groups = [here[sorted(g)] for g in batches(left[here].tolist(), 2.0, SPARE_SEATS)]
        needed = sum(len(group) * left[group].max() for group in groups)
        if 2 * needed > len(self._lengths) * self._width:
            self._place(numbers)
            yield self
            return
        for group in groups:
            yield self._moved(group, np.isin(self._owners, group), numbers)

    def _moved(self, prompts: Ints, who: Bools, rows: Ints) -> Table:
        """A table of some prompts for some of the responses here, with what they have written."""
        owners = np.searchsorted(prompts, self._owners[who])
        chosen = self._prompts.chosen(prompts, self._device)
        table = Table(chosen, rows[who], owners, self._room)
        table.length = self.length
        old = np.zeros(len(prompts) * table._width, dtype=np.int64)
        old[table._seat_of] = self._seat_of[who]
        seats = self._sent(old.reshape(len(prompts), table._width))
        for layer in self._own_keys:
            for mine, its in (
                (self._own_keys, table._own_keys),
                (self._own_values, table._own_values),
            ):
                by_seat = mine[layer].unflatten(0, (len(self._lengths), -1, self._width))
                at = by_seat[seats // self._width, :, seats % self._width, : self.length]
                its[layer] = at.transpose(1, 2).flatten(0, 2)
        return table

    def _place(self, rows: Ints) -> None:
        """Note which live response sits where; empty seats repeat the first one."""
        self._rows = rows
        self.index = self._sent(rows)
        sitting = np.zeros(len(self._lengths) * self._width, dtype=np.int64)
        sitting[self._seat_of] = np.arange(len(self._seat_of))
        self._full = np.array_equal(self._seat_of, np.arange(len(sitting)))
        self._sitting = self._sent(sitting)
        self._seat_index = self._sent(self._seat_of)

    def _seat(self, rows: Tensor) -> Tensor:
        """[S, K, ...] -> [P K W, ...]."""
        seated = rows if self._full else rows[self._sitting]
        if rows.shape[1] == 1:
            return seated.flatten(0, 1)
        by_prompt: Tensor = seated.unflatten(0, (len(self._lengths), self._width))
        return by_prompt.transpose(1, 2).flatten(0, 2)

    def _unseat(self, seated: Tensor, heads: int) -> Tensor:
        """[P K W, R, V] -> [S, K R, V]."""
        if heads > 1:
            by_head = seated.unflatten(0, (len(self._lengths), heads, self._width))
            seated = by_head.transpose(1, 2).flatten(2, 3).flatten(0, 1)
        return seated if self._full else seated[self._seat_index]

    def _sent(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def tensors(self) -> list[Tensor]:
        """All keys and values."""
        caches = self._prompts.keys, self._prompts.values, self._own_keys, self._own_values
        return [tensor for cache in caches for tensor in cache.values()]


def _seats(owners: Ints) -> tuple[int, Ints]:
    """Seat responses by their prompt, owners [S] ascending -> seats a prompt, place of each [S]."""
    number = np.arange(len(owners)) - np.searchsorted(owners, owners)
    width = int(number.max(initial=0)) + 1
    return width, owners * width + number
