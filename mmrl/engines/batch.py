"""Responses decoded side by side, and prompts that wait for the seats of those that end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mmrl.engines.decoding import Decoding
from mmrl.engines.draws import choose
from mmrl.engines.engine import Sampling
from mmrl.engines.ongoing import Fed, go_on
from mmrl.engines.prefill import Prefill
from mmrl.engines.prefix_cache import PrefixCache
from mmrl.engines.tape import Recordable, Steps
from mmrl.engines.threads import decoding_threads
from mmrl.errors import UserError
from mmrl.policy.appending import continued
from mmrl.policy.attention import active_layout
from mmrl.policy.packing import content_of
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.types import Floats, Ints, Prompt, Response

WORTH_JOINING = 0.25
"""The share of all seats that is free when prompts take some: each time costs a pass over few
prompts, and steps of another number of rows."""


@dataclass(frozen=True)
class Room:
    """Responses side by side at most, and prompt tokens of a pass; one group or prompt always."""

    sequences: int
    prefill_tokens: int


class Batch:
    """Prompts decoded until every response has ended; those that end make room for others.

    What is cached may come to no more than the prompts that came first may, with answers at their
    limit. With what was fed `before`, prompts go on from there, and what is fed here is kept there.
    """

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        counts: Sequence[int],
        sampling: Sampling,
        room: Room,
        recordable: Recordable,
        before: PrefixCache | None = None,
    ) -> None:
        self._before = before
        self._fed: dict[int, Fed] = {}
        self._policy, self._prompts, self._sampling = policy, prompts, sampling
        self._room, self._recordable = room, recordable
        self._banned, self._ends = policy.banned, set(policy.family.end_ids)
        self._counts = np.array(counts, dtype=np.int64)
        self._owners = np.repeat(np.arange(len(prompts)), counts)
        lasts = np.cumsum(counts) - 1
        self._greedy = np.full(len(self._owners), sampling.temperature == 0)
        self._greedy[lasts[self._counts > 0]] |= sampling.greedy_too
        self._seated, self._live = 0, np.zeros(0, dtype=np.int64)
        self._written = np.zeros(len(self._owners), dtype=np.int64)
        self._tokens: list[tuple[Ints, Ints, Tensor]] = []
        self._cache_tokens = 0

    def run(self, generator: torch.Generator) -> list[list[Response]]:
        """Prefill each prompt once, then decode token by token."""
        decoding = Decoding(self._sampling.max_new_tokens)
        logits, position = self._seat(decoding)
        while True:
            with decoding_threads(self._policy.model, len(self._live)):
                logits, position = self._decode(decoding, logits, position, generator)
            if not self._joining() and not len(self._live):
                return self._collect()
            more = self._seat(decoding)
            logits, position = torch.cat([logits, more[0]]), torch.cat([position, more[1]])

    def _joining(self) -> int:
        """How many of the prompts that wait can be seated now."""
        sizes = self._counts[self._seated :]
        lengths = np.array([len(prompt.ids) for prompt in self._prompts[self._seated :]])
        free = self._room.sequences - len(self._live)
        fitting = np.cumsum(sizes) <= free
        if self._cache_tokens:
            live = np.unique(self._owners[self._live])
            held = sum(len(self._prompts[owner].ids) for owner in live)
            held += len(self._live) * self._sampling.max_new_tokens
            added = np.cumsum(lengths + sizes * self._sampling.max_new_tokens)
            fitting &= held + added <= self._cache_tokens
        count = int(np.argmin(np.append(fitting, False)))
        if not len(self._live):
            return max(count, min(len(sizes), 1))
        waits = free < WORTH_JOINING * self._room.sequences and count < len(sizes)
        return 0 if waits else count

    def _seat(self, decoding: Decoding) -> tuple[Tensor, Tensor]:
        """Let waiting prompts have free seats: first logits [S, V] and position [S] of each."""
        start, stop = self._seated, self._seated + self._joining()
        first, prefill = self._prefill(self._prompts[start:stop])
        (rows,) = np.nonzero((self._owners >= start) & (self._owners < stop))
        owners = self._owners[rows] - start
        decoding.join(prefill, owners)
        self._seated, self._live = stop, np.concatenate([self._live, rows])
        if not self._cache_tokens:
            own = len(rows) * self._sampling.max_new_tokens
            self._cache_tokens = own + sum(len(p.ids) for p in self._prompts[start:stop])
        starts = torch.tensor([p.next_position for p in self._prompts[start:stop]])[owners]
        return first[torch.from_numpy(owners).to(first.device)], starts.to(first.device)

    def _decode(
        self, decoding: Decoding, logits: Tensor, position: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Go on until all have ended or others may join: logits and positions of who is live."""
        step = partial(self._step, decoding)
        steps = Steps(step, decoding, self._recordable, self._policy.model)
        while True:
            greedy = self._greedy[self._live]
            chosen, logprobs = choose(logits, self._banned, greedy, self._sampling, generator)
            ids = chosen.cpu().numpy()
            self._tokens.append((self._live, ids, logprobs))
            self._written[self._live] += 1
            going = self._written[self._live] < self._sampling.max_new_tokens
            going &= np.array([token not in self._ends for token in ids.tolist()])
            if not going.all():
                (rows,) = going.nonzero()
                kept = torch.from_numpy(rows).to(logits.device)
                self._ended(decoding, np.flatnonzero(~going))
                self._live, chosen, position = self._live[rows], chosen[kept], position[kept]
                decoding.keep(rows)
                if not len(rows):
                    return logits[:0], position
            logits = steps(chosen, position)
            decoding.advance()
            position = position + 1
            if not going.all() and self._joining():
                return logits, position

    def _prefill(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Prefill]:
        """Passes over prompts: first logits [P, V] and what decoding needs of them.

        What is drawn from the logits does not know how many passes there were.
        """
        prefill = Prefill([len(prompt.ids) for prompt in prompts])
        fed = [None] * len(prompts) if self._before is None else self._before.take(prompts)
        new = [n for n, old in enumerate(fed) if old is None]
        begun = {n: old for n, old in enumerate(fed) if old is not None}
        states = self._first(prompts, prefill, new) + self._later(prompts, prefill, begun)
        order = np.argsort(np.array([*new, *begun]))
        ends = torch.cat(states)[torch.from_numpy(order).to(self._policy.device)]
        logits = self._policy.head(ends)
        if not torch.isfinite(logits).all():
            raise UserError(
                "the policy's logits are not finite: lower optimizer.learning_rate and resume "
                "from the last checkpoint"
            )
        return logits, prefill

    def _first(
        self, prompts: Sequence[Prompt], prefill: Prefill, numbers: Sequence[int]
    ) -> list[Tensor]:
        """Run some of the prompts from their beginnings; the states [P, H] behind them."""
        lengths, tokens = [len(prompts[n].ids) for n in numbers], self._room.prefill_tokens
        if self._sampling.to_train and self._policy.kept.left > 0:
            tokens = min(tokens, self._policy.kept.left)
        states = []
        for start, stop in spans(lengths, tokens):
            places = np.array(numbers[start:stop])
            part = [prompts[n] for n in numbers[start:stop]]
            if self._sampling.to_train and sum(lengths[start:stop]) <= self._policy.kept.left:
                states.append(self._keep(part, prefill, places))
                continue
            rows = lay_out([SharedRow(p, ()) for p in part], self._policy.device)
            with active_layout(prefill.part(rows, places)):
                hidden = self._policy.hidden_states(rows.ids, rows.positions, rows.media)
            states.append(hidden[[run.stop - 1 for run in rows.prompts]])
        return states

    def _later(
        self, prompts: Sequence[Prompt], prefill: Prefill, begun: Mapping[int, Fed]
    ) -> list[Tensor]:
        """Run what is new of the prompts that have `begun`; the states [P, H] behind them."""
        numbers, states = list(begun), []
        lengths = [len(prompts[n].ids) - old.size for n, old in begun.items()]
        for start, stop in spans(lengths, self._room.prefill_tokens):
            places = numbers[start:stop]
            part, old = [prompts[n] for n in places], [begun[n] for n in places]
            rows = go_on(part, old, self._policy.device)
            with active_layout(prefill.part(rows, np.array(places))):
                hidden = self._policy.hidden_states(rows.ids, rows.positions, rows.media)
            states.append(hidden[[run.stop - 1 for run in rows.prompts]])
        return states

    def _keep(self, prompts: Sequence[Prompt], prefill: Prefill, numbers: Ints) -> Tensor:
        """Run prompts as the update would, and for it; the states behind them [P, H]."""
        policy = self._policy
        with torch.inference_mode(False), torch.enable_grad(), policy.learning(0):
            ran = policy.run_prompts(prompts)
        policy.kept.add([content_of(prompt) for prompt in prompts], ran)
        prefill.take(ran, numbers)
        return ran.last.detach()

    def _ended(self, decoding: Decoding, rows: Ints) -> None:
        """Keep what was fed of live responses that end, for what may go on from them."""
        if self._before is None:
            return
        asked = [len(self._prompts[n].ids) for n in self._owners[self._live[rows]].tolist()]
        sizes = np.array(asked) + self._written[self._live[rows]] - 1  # the last one is never fed
        rows = rows[[self._before.promise(size) for size in sizes.tolist()]]
        numbers = self._live[rows]
        media = [len(self._prompts[n].media) for n in self._owners[numbers].tolist()]
        self._fed |= dict(zip(numbers.tolist(), decoding.fed(rows, np.array(media)), strict=True))

    def _step(self, decoding: Decoding, chosen: Tensor, position: Tensor) -> Tensor:
        axes = self._prompts[0].positions.shape[0]
        with active_layout(decoding):
            hidden = self._policy.hidden_states(chosen, position.expand(axes, -1), ())
        return self._policy.head(hidden)

    def _collect(self) -> list[list[Response]]:
        ids = np.zeros((len(self._owners), self._written.max(initial=0)), dtype=np.int64)
        logprobs = np.zeros(ids.shape)
        lengths = np.zeros(len(ids), dtype=np.int64)
        values = torch.cat([value for _, _, value in self._tokens]).double().cpu().numpy()
        pieces = np.split(values, np.cumsum([len(live) for live, _, _ in self._tokens[:-1]]))
        for (live, chosen, _), value in zip(self._tokens, pieces, strict=True):
            ids[live, lengths[live]], logprobs[live, lengths[live]] = chosen, value
            lengths[live] += 1
        groups: list[list[Response]] = [[] for _ in self._prompts]
        owners = self._owners.tolist()
        for row, (owner, length) in enumerate(zip(owners, lengths, strict=True)):
            answer = respond(self._policy, ids[row, :length].copy(), logprobs[row, :length].copy())
            groups[owner].append(answer)
            if self._before is not None and row in self._fed:
                self._before.add(continued(self._prompts[owner], answer.ids), self._fed.pop(row))
        return groups


def spans(sizes: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """Split so that the sizes of each part add up to at most `limit`, or it has one."""
    start, held = 0, 0
    for i, size in enumerate(sizes):
        if i > start and held + size > limit:
            yield start, i
            start, held = i, 0
        held += size
    if start < len(sizes):
        yield start, len(sizes)


def respond(policy: Policy, ids: Ints, logprobs: Floats) -> Response:
    """A response from its token ids [T], the end token included, and their log-probs [T]."""
    ended = int(ids[-1]) in policy.family.end_ids
    text = policy.processor.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
    return Response(ids=ids, logprobs=logprobs, text=text, finish="stop" if ended else "length")
