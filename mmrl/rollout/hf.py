"""The embedded engine: the policy's own model, one prefill a prompt, one copy of its keys.

A prompt's keys and values are kept once for all of its responses; a response keeps only its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mmrl.errors import UserError
from mmrl.policy.attention import active_layout
from mmrl.policy.logprobs import policy_log_softmax
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedPrefix, SharedRow, lay_out
from mmrl.policy.weights import Weights
from mmrl.rollout import plain
from mmrl.rollout.engine import Sampling
from mmrl.rollout.threads import decoding_threads
from mmrl.types import Bools, Floats, Ints, Prompt, Response


class HFEngine:
    """Samples with the policy's own weights, so that there is nothing to sync."""

    def __init__(self, policy: Policy, max_sequences: int = 256) -> None:
        self._policy = policy
        self._max_sequences = max_sequences

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Sample counts[i] responses to prompt i, at most `max_sequences` side by side."""
        was_training = self._policy.model.training
        self._policy.model.eval()
        sample = self._sample if self._policy.family.declaration.shared_prefix else self._copy
        groups = sample(prompts, counts, sampling, seed)
        self._policy.model.train(was_training)
        return groups

    def _sample(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        groups: list[list[Response]] = []
        counts = sampling.counts(counts)
        for number, (start, stop) in enumerate(_batches(counts, self._max_sequences)):
            generator = torch.Generator(self._policy.device).manual_seed(seed + number)
            batch = Batch(self._policy, prompts[start:stop], counts[start:stop], sampling)
            groups += batch.run(generator)
        return groups

    def _copy(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        drawn = plain.generate(self._policy, prompts, counts, sampling, seed)
        if sampling.greedy_too:
            greedy = replace(sampling, temperature=0.0)
            last = plain.generate(self._policy, prompts, [1] * len(prompts), greedy, seed)
            drawn = [[*group, *one] for group, one in zip(drawn, last, strict=True)]
        return [[respond(self._policy, *answer) for answer in group] for group in drawn]

    def sync(self, weights: Weights) -> None:
        """Nothing to do: the weights are the policy's own and no cache outlives a call."""

    def close(self) -> None:
        """Nothing is held."""


def _batches(counts: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """Split prompts so that each part has at most `limit` responses (or one prompt)."""
    start, held = 0, 0
    for i, count in enumerate(counts):
        if i > start and held + count > limit:
            yield start, i
            start, held = i, 0
        held += count
    if start < len(counts):
        yield start, len(counts)


class Prefill:
    """Prompts attend causally to themselves; their keys and values are remembered by layer."""

    def __init__(self, rows: SharedPrefix) -> None:
        self._rows = rows
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None = None,
    ) -> Tensor:
        """Attend as the training rows do, and keep [P, K, L, D] keys and values."""
        self.keys[layer] = key[self._rows.prompts].transpose(1, 2).contiguous()
        self.values[layer] = value[self._rows.prompts].transpose(1, 2).contiguous()
        return self._rows.attend(layer, query, key, value, scale, window)


class Decoding:
    """One new token for each live response [S]: it sees its prompt's keys and its own.

    Responses sit beside their prompt, [P, W] seats in all, so that a prompt's keys are read once
    for all of them. A response that has finished leaves its seat empty; when half of the seats
    are no longer needed, the others move together.
    """

    def __init__(self, prefill: Prefill, lengths: Ints, owners: Ints, room: int) -> None:
        self.length = 0
        self._owners = owners
        self._prompt_keys, self._prompt_values = prefill.keys, prefill.values
        cache = next(iter(prefill.keys.values()))
        self._prompts, kv_heads, longest, dim = cache.shape
        self._width, self._seat_of = _seats(owners)
        own = (self._prompts, kv_heads, self._width, room, dim)
        self._own_keys = {layer: cache.new_empty(own) for layer in prefill.keys}
        self._own_values = {layer: cache.new_empty(own) for layer in prefill.keys}
        padding = torch.from_numpy(np.arange(longest) >= lengths[:, None]).to(cache.device)
        hidden = cache.new_zeros(padding.shape).masked_fill(padding, float("-inf"))
        self._hidden = hidden[:, None, None].repeat(1, kv_heads, 1, 1)
        self._lengths = torch.from_numpy(lengths).to(cache.device)
        self._place()

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None = None,
    ) -> Tensor:
        """Joint softmax over prompt and own keys; query [S, H, D], key and value [S, K, D]."""
        prompt_k, prompt_v = self._prompt_keys[layer], self._prompt_values[layer]
        own_k, own_v = self._own_keys[layer], self._own_values[layer]
        prompts, kv_heads, longest, dim = prompt_k.shape
        own_k[:, :, :, self.length] = self._seat(key)
        own_v[:, :, :, self.length] = self._seat(value)
        own_k, own_v = (x[:, :, :, : self.length + 1].flatten(0, 2) for x in (own_k, own_v))

        seated = self._seat((query * scale).unflatten(1, (kv_heads, -1)))  # [P, K, W, R, D]
        each = seated.reshape(len(own_k), -1, dim)  # [P K W, R, D]
        together = each.view(prompts * kv_heads, -1, dim)  # [P K, W R, D]
        hidden = (self._hidden if window is None else self._beyond(window)).flatten(0, 1)
        to_prompt = torch.baddbmm(hidden, together, prompt_k.flatten(0, 1).transpose(1, 2))
        to_own = each @ own_k.transpose(1, 2)
        if window is not None and self.length >= window:
            to_own[..., : self.length + 1 - window] = float("-inf")
        scores = torch.cat([to_prompt.view(*to_own.shape[:2], longest), to_own], dim=-1)
        weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
        on_prompt = weights[..., :longest].unflatten(0, (len(together), -1)).flatten(1, 2)
        out = (on_prompt @ prompt_v.flatten(0, 1)).view_as(each)
        out = torch.baddbmm(out, weights[..., longest:], own_v)
        return self._unseat(out.view(seated.shape).transpose(1, 2).reshape(-1, *query.shape[1:]))

    def _beyond(self, window: int) -> Tensor:
        """`_hidden` with the prompt's tokens that the window has left behind hidden too."""
        place = torch.arange(self._hidden.shape[-1], device=self._hidden.device)
        lost = place <= (self._lengths + self.length - window)[:, None]
        return self._hidden.masked_fill(lost[:, None, None], float("-inf"))

    def keep(self, rows: Ints) -> None:
        """Let go of finished responses; `rows` are the live ones."""
        self._owners, self._seat_of = self._owners[rows], self._seat_of[rows]
        prompts, owners = np.unique(self._owners, return_inverse=True)
        width, seat_of = _seats(owners)
        if 2 * len(prompts) * width <= self._prompts * self._width:
            self._move_together(prompts, owners, width, seat_of)
        self._place()

    def _move_together(self, prompts: Ints, owners: Ints, width: int, seat_of: Ints) -> None:
        device = self._hidden.device
        kept = torch.from_numpy(prompts).to(device)
        old = np.zeros(len(prompts) * width, dtype=np.int64)
        old[seat_of] = self._seat_of
        seats = torch.from_numpy(old.reshape(len(prompts), width)).to(device)
        for cache in (self._prompt_keys, self._prompt_values):
            cache.update({layer: rows[kept] for layer, rows in cache.items()})
        for cache in (self._own_keys, self._own_values):
            for layer, rows in cache.items():
                moved = rows.new_empty(len(prompts), rows.shape[1], width, *rows.shape[3:])
                used = rows[:, :, :, : self.length]
                moved[:, :, :, : self.length] = used[
                    seats // self._width, :, seats % self._width
                ].transpose(1, 2)
                cache[layer] = moved
        self._hidden, self._lengths = self._hidden[kept], self._lengths[kept]
        self._prompts, self._width = len(prompts), width
        self._owners, self._seat_of = owners, seat_of

    def _place(self) -> None:
        """Note which live response sits where; empty seats repeat the first one."""
        sitting = np.zeros(self._prompts * self._width, dtype=np.int64)
        sitting[self._seat_of] = np.arange(len(self._seat_of))
        self._full = np.array_equal(self._seat_of, np.arange(len(sitting)))
        self._sitting = torch.from_numpy(sitting).to(self._hidden.device)
        self._seat_index = torch.from_numpy(self._seat_of).to(self._hidden.device)

    def _seat(self, rows: Tensor) -> Tensor:
        """[S, K, ...] -> [P, K, W, ...]."""
        seated = rows if self._full else rows[self._sitting]
        by_prompt: Tensor = seated.unflatten(0, (self._prompts, self._width))
        return by_prompt.transpose(1, 2)

    def _unseat(self, seated: Tensor) -> Tensor:
        """[P * W, ...] -> [S, ...]."""
        return seated if self._full else seated[self._seat_index]


def _seats(owners: Ints) -> tuple[int, Ints]:
    """Seat responses by their prompt, owners [S] ascending -> seats a prompt, place of each [S]."""
    number = np.arange(len(owners)) - np.searchsorted(owners, owners)
    width = int(number.max(initial=0)) + 1
    return width, owners * width + number


class Batch:
    """Prompts decoded side by side until every response has ended."""

    def __init__(
        self, policy: Policy, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling
    ) -> None:
        self._policy, self._prompts, self._sampling = policy, prompts, sampling
        self._banned = policy.banned
        self._owners = np.repeat(np.arange(len(prompts)), counts)
        lasts = np.cumsum(counts) - 1
        self._greedy = np.full(len(self._owners), sampling.temperature == 0)
        self._greedy[lasts[np.asarray(counts) > 0]] |= sampling.greedy_too

    def run(self, generator: torch.Generator) -> list[list[Response]]:
        """Prefill once, then decode token by token; finished responses leave the batch."""
        logits, decoding = self._prefill()
        with decoding_threads(self._policy.model, len(self._owners)):
            return self._collect(self._decode(logits, decoding, generator))

    def _decode(
        self, logits: Tensor, decoding: Decoding, generator: torch.Generator
    ) -> list[tuple[Ints, Ints, Tensor]]:
        """Per step: which responses were live, the ids they drew, and their log-probs."""
        live = np.arange(len(self._owners))
        starts = torch.tensor([p.next_position for p in self._prompts])[self._owners]
        position = starts.to(logits.device)
        tokens: list[tuple[Ints, Ints, Tensor]] = []
        while True:
            chosen, logprobs = self._sample(logits, self._greedy[live], generator)
            ids = chosen.cpu().numpy()
            tokens.append((live, ids, logprobs))
            going = ~np.isin(ids, self._policy.family.end_ids)
            if len(tokens) == self._sampling.max_new_tokens or not going.any():
                return tokens
            if not going.all():
                (rows,) = going.nonzero()
                kept = torch.from_numpy(rows).to(logits.device)
                live, chosen, position = live[rows], chosen[kept], position[kept]
                decoding.keep(rows)
            logits = self._step(chosen, position, decoding)
            position = position + 1

    def _prefill(self) -> tuple[Tensor, Decoding]:
        """One pass over the prompts: first logits [S, V] and the state to decode from."""
        rows = lay_out([SharedRow(p, ()) for p in self._prompts], self._policy.device)
        layout = Prefill(rows)
        with active_layout(layout):
            hidden = self._policy.hidden_states(rows.ids, rows.positions, self._prompts)
        lengths = np.array([len(p.ids) for p in self._prompts])
        last = torch.from_numpy(lengths.cumsum() - 1).to(hidden.device)
        owners = torch.from_numpy(self._owners).to(hidden.device)
        room = self._sampling.max_new_tokens
        decoding = Decoding(layout, lengths, self._owners, room)
        logits = self._policy.head(hidden[last])
        if not torch.isfinite(logits).all():
            raise UserError(
                "the policy's logits are not finite: lower optimizer.learning_rate and resume "
                "from the last checkpoint"
            )
        return logits[owners], decoding

    def _step(self, chosen: Tensor, position: Tensor, decoding: Decoding) -> Tensor:
        axes = self._prompts[0].positions.shape[0]
        with active_layout(decoding):
            hidden = self._policy.hidden_states(chosen, position.expand(axes, -1), ())
        decoding.length += 1
        return self._policy.head(hidden)

    def _sample(
        self, logits: Tensor, greedy: Bools, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Choose a token a row, the likeliest in `greedy` ones.

        Its log-prob is that of the untruncated policy.
        """
        log_all = policy_log_softmax(logits, self._banned, self._sampling.temperature or 1.0)
        if greedy.all():
            chosen = log_all.argmax(-1)
        else:
            chosen = draw(truncate(log_all, self._sampling), generator)
            if greedy.any():
                rows = torch.from_numpy(greedy).to(chosen.device)
                chosen = torch.where(rows, log_all.argmax(-1), chosen)
        return chosen, log_all.gather(-1, chosen[:, None])[:, 0]

    def _collect(self, tokens: list[tuple[Ints, Ints, Tensor]]) -> list[list[Response]]:
        ids = np.zeros((len(self._owners), len(tokens)), dtype=np.int64)
        logprobs = np.zeros(ids.shape)
        lengths = np.zeros(len(ids), dtype=np.int64)
        values = torch.cat([value for _, _, value in tokens]).double().cpu().numpy()
        pieces = np.split(values, np.cumsum([len(live) for live, _, _ in tokens[:-1]]))
        for at, ((live, chosen, _), value) in enumerate(zip(tokens, pieces, strict=True)):
            ids[live, at], logprobs[live, at] = chosen, value
            lengths[live] = at + 1
        groups: list[list[Response]] = [[] for _ in self._prompts]
        for row, (owner, length) in enumerate(zip(self._owners, lengths, strict=True)):
            answer = respond(self._policy, ids[row, :length].copy(), logprobs[row, :length].copy())
            groups[owner].append(answer)
        return groups


def respond(policy: Policy, ids: Ints, logprobs: Floats) -> Response:
    """A response from its token ids [T], the end token included, and their log-probs [T]."""
    ended = int(ids[-1]) in policy.family.end_ids
    text = policy.processor.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
    return Response(ids=ids, logprobs=logprobs, text=text, finish="stop" if ended else "length")


def draw(log_all: Tensor, generator: torch.Generator) -> Tensor:
    """Sample an id a row from log-weights [S, V]; one at minus infinity is never drawn."""
    cumulative = log_all.double().exp().cumsum(-1)
    uniform = torch.rand(
        len(log_all), 1, dtype=cumulative.dtype, device=log_all.device, generator=generator
    )
    # 1 - uniform is in (0, 1]: the first id to reach it has a weight above 0, the last one too.
    return torch.searchsorted(cumulative, (1 - uniform) * cumulative[:, -1:])[:, 0]


def truncate(log_all: Tensor, sampling: Sampling) -> Tensor:
    """Cut the distribution [S, V] to top-k and top-p; cut tokens get minus infinity."""
    if sampling.top_k:
        floor = log_all.topk(min(sampling.top_k, log_all.shape[-1])).values[:, -1:]
        log_all = log_all.masked_fill(log_all < floor, float("-inf"))
    if sampling.top_p < 1:
        ordered, order = log_all.softmax(-1).sort(descending=True)
        before = ordered.cumsum(-1) - ordered
        cut = torch.zeros_like(before, dtype=torch.bool).scatter(
            -1, order, before >= sampling.top_p
        )
        log_all = log_all.masked_fill(cut, float("-inf"))
    return log_all
