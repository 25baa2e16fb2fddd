"""The embedded engine: the policy's own model, one prefill a prompt, one copy of its keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mmrl.engines import plain_generate
from mmrl.engines.decoding import Decoding, Prefill
from mmrl.engines.engine import Sampling
from mmrl.engines.tape import Recordable, Steps
from mmrl.engines.threads import decoding_threads
from mmrl.errors import UserError
from mmrl.policy.attention import active_layout
from mmrl.policy.linears import decoding as packed_linears
from mmrl.policy.logprobs import policy_log_softmax
from mmrl.policy.packing import content_of, default_budget
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.policy.weights import Weights
from mmrl.types import Bools, Floats, Ints, Prompt, Response


class HFEngine:
    """Samples with the policy's own weights, so that there is nothing to sync."""

    def __init__(
        self, policy: Policy, max_sequences: int = 256, prefill_tokens: int | None = None
    ) -> None:
        """Prompts are prefilled some at a time, at most `prefill_tokens` in one pass (or one)."""
        self._policy = policy
        self._max_sequences = max_sequences
        self._recordable = Recordable()
        self._prefill_tokens = prefill_tokens or default_budget(policy.device)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Sample counts[i] responses to prompt i, at most `max_sequences` side by side."""
        was_training = self._policy.model.training
        self._policy.model.eval()
        self._policy.store.stay(sampling.still)
        sample = self._sample if self._policy.family.declaration.shared_prefix else self._copy
        with packed_linears(self._policy.model):
            groups = sample(prompts, counts, sampling, seed)
        self._policy.model.train(was_training)
        return groups

    def _sample(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        groups: list[list[Response]] = []
        counts = sampling.counts(counts)
        for number, (start, stop) in enumerate(_spans(counts, self._max_sequences)):
            generator = torch.Generator(self._policy.device).manual_seed(seed + number)
            part = prompts[start:stop], counts[start:stop]
            batch = Batch(self._policy, *part, sampling, self._recordable)
            groups += batch.run(generator, self._prefill_tokens)
        return groups

    def _copy(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        drawn = plain_generate.generate(self._policy, prompts, counts, sampling, seed)
        if sampling.greedy_too:
            greedy = replace(sampling, temperature=0.0)
            last = plain_generate.generate(self._policy, prompts, [1] * len(prompts), greedy, seed)
            drawn = [[*group, *one] for group, one in zip(drawn, last, strict=True)]
        return [[respond(self._policy, *answer) for answer in group] for group in drawn]

    def sync(self, weights: Weights) -> None:
        """Nothing to do: the weights are the policy's own and no cache outlives a call."""

    def close(self) -> None:
        """Nothing is held."""


def _spans(sizes: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """Split so that the sizes of each part add up to at most `limit`, or it has one."""
    start, held = 0, 0
    for i, size in enumerate(sizes):
        if i > start and held + size > limit:
            yield start, i
            start, held = i, 0
        held += size
    if start < len(sizes):
        yield start, len(sizes)


class Batch:
    """Prompts decoded side by side until every response has ended."""

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        counts: Sequence[int],
        sampling: Sampling,
        recordable: Recordable,
    ) -> None:
        self._policy, self._prompts, self._sampling = policy, prompts, sampling
        self._recordable = recordable
        self._banned = policy.banned
        self._owners = np.repeat(np.arange(len(prompts)), counts)
        lasts = np.cumsum(counts) - 1
        self._greedy = np.full(len(self._owners), sampling.temperature == 0)
        self._greedy[lasts[np.asarray(counts) > 0]] |= sampling.greedy_too

    def run(self, generator: torch.Generator, prefill_tokens: int) -> list[list[Response]]:
        """Prefill once, then decode token by token; finished responses leave the batch."""
        logits, decoding = self._prefill(prefill_tokens)
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
        step = partial(self._step, decoding)
        steps = Steps(step, decoding, self._recordable, self._policy.model)
        ends = set(self._policy.family.end_ids)
        while True:
            chosen, logprobs = self._sample(logits, self._greedy[live], generator)
            ids = chosen.cpu().numpy()
            tokens.append((live, ids, logprobs))
            going = np.array([token not in ends for token in ids.tolist()])
            if len(tokens) == self._sampling.max_new_tokens or not going.any():
                return tokens
            if not going.all():
                (rows,) = going.nonzero()
                kept = torch.from_numpy(rows).to(logits.device)
                live, chosen, position = live[rows], chosen[kept], position[kept]
                decoding.keep(rows)
            logits = steps(chosen, position)
            decoding.length += 1
            position = position + 1

    def _prefill(self, tokens: int) -> tuple[Tensor, Decoding]:
        """Passes over the prompts: first logits [S, V] and the state to decode from.

        What is drawn from the logits does not know how many passes there were.
        """
        lengths = [len(p.ids) for p in self._prompts]
        prefill, lasts = Prefill(lengths), []
        if self._sampling.to_train and self._policy.kept.left > 0:
            tokens = min(tokens, self._policy.kept.left)
        for start, stop in _spans(lengths, tokens):
            part = self._prompts[start:stop]
            if self._sampling.to_train and sum(lengths[start:stop]) <= self._policy.kept.left:
                lasts.append(self._keep(part, prefill, start))
                continue
            rows = lay_out([SharedRow(p, ()) for p in part], self._policy.device)
            with active_layout(prefill.part(rows, start)):
                hidden = self._policy.hidden_states(rows.ids, rows.positions, rows.media)
            lasts.append(hidden[[run.stop - 1 for run in rows.prompts]])
        logits = self._policy.head(torch.cat(lasts))
        if not torch.isfinite(logits).all():
            raise UserError(
                "the policy's logits are not finite: lower optimizer.learning_rate and resume "
                "from the last checkpoint"
            )
        owners = torch.from_numpy(self._owners).to(logits.device)
        return logits[owners], Decoding(prefill, self._owners, self._sampling.max_new_tokens)

    def _keep(self, prompts: Sequence[Prompt], prefill: Prefill, start: int) -> Tensor:
        """Run prompts as the update would, and for it; the states behind them [P, H]."""
        policy = self._policy
        with torch.inference_mode(False), torch.enable_grad(), policy.learning(0):
            ran = policy.run_prompts(prompts)
        policy.kept.add([content_of(prompt) for prompt in prompts], ran)
        prefill.take(ran, start)
        return ran.last.detach()

    def _step(self, decoding: Decoding, chosen: Tensor, position: Tensor) -> Tensor:
        axes = self._prompts[0].positions.shape[0]
        with active_layout(decoding):
            hidden = self._policy.hidden_states(chosen, position.expand(axes, -1), ())
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
