"""The embedded engine: the policy's own model, one prefill a prompt, one copy of its keys.

A prompt's keys and values are kept once for all of its responses; a response keeps only its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmrl.errors import UserError
from mmrl.policy.attention import active_layout
from mmrl.policy.logprobs import policy_log_softmax
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedPrefix, SharedRow, lay_out
from mmrl.rollout import plain
from mmrl.rollout.engine import Sampling
from mmrl.types import Prompt, Response


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
        for number, (start, stop) in enumerate(_batches(counts, self._max_sequences)):
            generator = torch.Generator(self._policy.device).manual_seed(seed + number)
            batch = Batch(self._policy, prompts[start:stop], counts[start:stop], sampling)
            groups += batch.run(generator)
        return groups

    def _copy(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        drawn = plain.generate(self._policy, prompts, counts, sampling, seed)
        return [[respond(self._policy, *answer) for answer in group] for group in drawn]

    def sync(self) -> None:
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


@dataclass
class Decoding:
    """One new token for each live response [S]: it sees its prompt's keys and its own.

    `seats` [P, W] says which live responses belong to a prompt, so that the prompt's keys are
    read once for all of them; `seat_of` [S] is a response's place in the flattened seats.
    `hidden_keys` [P, 1, 1, L] is minus infinity at padding; `prompt_lengths` [P].
    """

    prompt_keys: dict[int, Tensor]
    prompt_values: dict[int, Tensor]
    own_keys: dict[int, Tensor]
    own_values: dict[int, Tensor]
    seats: Tensor
    seat_of: Tensor
    hidden_keys: Tensor
    prompt_lengths: Tensor
    length: int = 0

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
        live, heads, dim = query.shape
        kv_heads = key.shape[1]
        own_k, own_v = self.own_keys[layer], self.own_values[layer]
        own_k[:, :, self.length] = key
        own_v[:, :, self.length] = value
        own_k, own_v = own_k[:, :, : self.length + 1], own_v[:, :, : self.length + 1]

        grouped = (query * scale).view(live, kv_heads, heads // kv_heads, dim)
        seated = self._seat(grouped)
        hidden = self.hidden_keys if window is None else self._beyond(window)
        to_prompt = self._unseat(seated @ self.prompt_keys[layer].transpose(2, 3) + hidden, grouped)
        to_own = grouped @ own_k.transpose(2, 3)
        if window is not None and self.length >= window:
            to_own[..., : self.length + 1 - window] = float("-inf")
        weights = torch.cat([to_prompt, to_own], dim=-1).softmax(-1)
        prompt_width = to_prompt.shape[-1]
        on_prompt = self._seat(weights[..., :prompt_width]) @ self.prompt_values[layer]
        out = self._unseat(on_prompt, grouped) + weights[..., prompt_width:] @ own_v
        return out.reshape(live, heads, dim)

    def _beyond(self, window: int) -> Tensor:
        """`hidden_keys` with the prompt's tokens that the window has left behind hidden too."""
        place = torch.arange(self.hidden_keys.shape[-1], device=self.hidden_keys.device)
        lost = place <= (self.prompt_lengths + self.length - window)[:, None]
        return self.hidden_keys.masked_fill(lost[:, None, None], float("-inf"))

    def _seat(self, rows: Tensor) -> Tensor:
        """[S, K, R, X] -> [P, K, W * R, X]: the responses of a prompt side by side."""
        prompts, width = self.seats.shape
        seated = rows[self.seats.flatten()].view(prompts, width, *rows.shape[1:])
        return seated.transpose(1, 2).flatten(2, 3)

    def _unseat(self, seated: Tensor, like: Tensor) -> Tensor:
        """[P, K, W * R, X] -> [S, K, R, X]."""
        prompts, width = self.seats.shape
        kv_heads, repeats = like.shape[1:3]
        split = seated.view(prompts, kv_heads, width, repeats, seated.shape[-1])
        return split.transpose(1, 2).flatten(0, 1)[self.seat_of]

    def keep(self, rows: Tensor, owners: Tensor) -> None:
        """Let go of finished responses: `rows` are the live ones, `owners` their prompts."""
        for cache in (self.own_keys, self.own_values):
            for layer in cache:
                cache[layer] = cache[layer][rows]
        self.seats, self.seat_of = seat(owners, self.seats.shape[0])


def seat(owners: Tensor, prompts: int) -> tuple[Tensor, Tensor]:
    """Seat responses [S] by prompt -> `seats` [P, W] (spare seats hold 0), `seat_of` [S]."""
    owner = owners.cpu().numpy()
    taken = np.zeros(prompts, dtype=np.int64)
    number = np.zeros(len(owner), dtype=np.int64)
    for i, p in enumerate(owner):
        number[i] = taken[p]
        taken[p] += 1
    width = int(taken.max(initial=1))
    seats = np.zeros((prompts, width), dtype=np.int64)
    seats[owner, number] = np.arange(len(owner))
    flat = owner * width + number
    return torch.from_numpy(seats).to(owners.device), torch.from_numpy(flat).to(owners.device)


class Batch:
    """Prompts decoded side by side until every response has ended."""

    def __init__(
        self, policy: Policy, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling
    ) -> None:
        self._policy, self._prompts, self._sampling = policy, prompts, sampling
        self._banned = policy.banned
        self._ends = torch.tensor(policy.family.end_ids, device=policy.device)
        self._owners = torch.repeat_interleave(torch.tensor(counts)).to(policy.device)
        self._next = torch.tensor([p.next_position for p in prompts], device=policy.device)

    def run(self, generator: torch.Generator) -> list[list[Response]]:
        """Prefill once, then decode token by token; finished responses leave the batch."""
        logits, decoding = self._prefill()
        live = torch.arange(len(self._owners), device=self._policy.device)
        tokens: list[tuple[Tensor, Tensor, Tensor]] = []
        while True:
            chosen, logprobs = self._sample(logits, generator)
            tokens.append((live, chosen, logprobs))
            going = ~torch.isin(chosen, self._ends)
            if len(tokens) == self._sampling.max_new_tokens or not going.any():
                return self._collect(tokens)
            if not going.all():
                rows = going.nonzero()[:, 0]
                live, chosen = live[rows], chosen[rows]
                decoding.keep(rows, self._owners[live])
            logits = self._step(chosen, live, decoding)

    def _prefill(self) -> tuple[Tensor, Decoding]:
        """One pass over the prompts: first logits [S, V] and the state to decode from."""
        rows = lay_out([SharedRow(p, ()) for p in self._prompts], self._policy.device)
        layout = Prefill(rows)
        with active_layout(layout):
            hidden = self._policy.hidden_states(rows.ids, rows.positions, self._prompts)
        lengths = torch.tensor([len(p.ids) for p in self._prompts], device=hidden.device)
        last = hidden[lengths.cumsum(0) - 1]
        seats, seat_of = seat(self._owners, len(self._prompts))
        padding = torch.arange(rows.prompts.shape[1], device=hidden.device) >= lengths[:, None]
        minus_infinity = torch.zeros_like(padding, dtype=hidden.dtype).masked_fill(
            padding, float("-inf")
        )
        decoding = Decoding(
            prompt_keys=layout.keys,
            prompt_values=layout.values,
            own_keys=self._room(layout.keys),
            own_values=self._room(layout.values),
            seats=seats,
            seat_of=seat_of,
            hidden_keys=minus_infinity[:, None, None],
            prompt_lengths=lengths,
        )
        logits = self._policy.head(last)
        if not torch.isfinite(logits).all():
            raise UserError(
                "the policy's logits are not finite: lower optimizer.learning_rate and resume "
                "from the last checkpoint"
            )
        return logits[self._owners], decoding

    def _room(self, prompt_cache: dict[int, Tensor]) -> dict[int, Tensor]:
        """Empty [S, K, max_new_tokens, D] caches for the responses' own keys or values."""
        live, longest = len(self._owners), self._sampling.max_new_tokens
        return {
            layer: cache.new_empty(live, cache.shape[1], longest, cache.shape[3])
            for layer, cache in prompt_cache.items()
        }

    def _step(self, chosen: Tensor, live: Tensor, decoding: Decoding) -> Tensor:
        position = self._next[self._owners[live]] + decoding.length
        axes = self._prompts[0].positions.shape[0]
        with active_layout(decoding):
            hidden = self._policy.hidden_states(chosen, position.expand(axes, -1), ())
        decoding.length += 1
        return self._policy.head(hidden)

    def _sample(self, logits: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Choose a token a row; its log-prob is that of the untruncated policy."""
        greedy = self._sampling.temperature == 0
        log_all = policy_log_softmax(logits, self._banned, self._sampling.temperature or 1.0)
        if greedy:
            chosen = log_all.argmax(-1)
        else:
            weights = truncate(log_all, self._sampling).exp()
            chosen = torch.multinomial(weights, 1, generator=generator)[:, 0]
        return chosen, log_all.gather(-1, chosen[:, None])[:, 0]

    def _collect(self, tokens: list[tuple[Tensor, Tensor, Tensor]]) -> list[list[Response]]:
        ids: list[list[int]] = [[] for _ in self._owners]
        logprobs: list[list[float]] = [[] for _ in self._owners]
        for live, chosen, values in tokens:
            for row, token, value in zip(
                live.tolist(), chosen.tolist(), values.tolist(), strict=True
            ):
                ids[row].append(token)
                logprobs[row].append(value)
        groups: list[list[Response]] = [[] for _ in self._prompts]
        for row, owner in enumerate(self._owners.tolist()):
            groups[owner].append(respond(self._policy, ids[row], logprobs[row]))
        return groups


def respond(policy: Policy, ids: list[int], logprobs: list[float]) -> Response:
    """A response from its token ids [T], the end token included, and their log-probs [T]."""
    ended = ids[-1] in policy.family.end_ids
    text = policy.processor.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
    return Response(
        ids=np.array(ids, dtype=np.int64),
        logprobs=np.array(logprobs),
        text=text,
        finish="stop" if ended else "length",
    )


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
