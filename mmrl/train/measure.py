"""What a policy says of given responses, token by token, without gradient and in chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrl.policy.logprobs import CHUNK_TOKENS, Head, policy_log_softmax
from mmrl.policy.policy import Policy
from mmrl.train.micro_batches import Packing, micro_batches, unweighted
from mmrl.types import Floats, Group, Ints, TrainSample

Measure = Callable[[Tensor, Tensor], Tensor]
"""Hidden states [W, H] that predict target ids [W] -> one value for each [W]."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@torch.no_grad()
def measured(
    policy: Policy, samples: Sequence[TrainSample], budget: int, measures: Mapping[str, Measure]
) -> dict[str, list[Floats]]:
    """Every measure [T] of every sample's response under its prompt, in one pass of the trunk.

    Of tokens that the model did not write it is 0.
    """
    found = {name: [np.zeros(len(s.response.ids)) for s in samples] for name in measures}
    for part in micro_batches(policy, unweighted(samples), Packing(budget)):
        layout, places = part.layout, [member.place for member in part.members]
        hidden = policy.response_hidden(layout, part.prompts)
        lengths = [len(samples[place].response.ids) for place in places]
        for name, measure in measures.items():
            pieces = layout.spread(measure(hidden, layout.targets)).split(lengths)
            for place, piece in zip(places, pieces, strict=True):
                found[name][place] = piece.double().cpu().numpy()
    return found


def entropy(policy: Policy, temperature: float) -> Measure:
    """The entropy in nats of the distribution that was sampled from."""

    def chunk(hidden: Tensor, targets: Tensor) -> Tensor:
        log_all = policy_log_softmax(policy.head(hidden), policy.banned, temperature)
        return -(log_all.exp() * log_all.clamp_min(-1e4)).sum(-1)

    return _in_chunks(chunk)


def collision(policy: Policy, temperature: float) -> Measure:
    """log sum p^2 of the distribution that was sampled from."""

    def chunk(hidden: Tensor, targets: Tensor) -> Tensor:
        log_all = policy_log_softmax(policy.head(hidden), policy.banned, temperature)
        return (2 * log_all).logsumexp(-1)

    return _in_chunks(chunk)


def certainty(policy: Policy, temperature: float) -> Measure:
    """Self-certainty of the distribution that was sampled from, over the ids it can sample."""
    head: Head = policy.head

    def chunk(hidden: Tensor, targets: Tensor) -> Tensor:
        logits = head(hidden).float() / temperature
        allowed = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
        allowed[policy.banned] = False
        return self_certainty(logits[:, allowed])

    return _in_chunks(chunk)


def indecision(policy: Policy, temperature: float) -> Measure:
    """1 - (p1 - p2), p1 and p2 being the two largest probabilities of what was sampled from.

    The uncertainty that PixelThink (arXiv 2505.23727) averages over an answer.
    """

    def chunk(hidden: Tensor, targets: Tensor) -> Tensor:
        log_all = policy_log_softmax(policy.head(hidden), policy.banned, temperature)
        first, second = log_all.topk(2, dim=-1).values.exp().unbind(-1)
        return 1.0 - (first - second)

    return _in_chunks(chunk)


def self_certainty(logits: Tensor) -> Tensor:
    """KL(uniform || policy) + log V of every token: logits [M, V] -> [M].

    Intuitor, arXiv 2505.19590.
    """
    return logits.logsumexp(-1) - logits.mean(-1)


def _in_chunks(measure: Measure) -> Measure:
    def whole(hidden: Tensor, targets: Tensor) -> Tensor:
        pieces = zip(hidden.split(CHUNK_TOKENS), targets.split(CHUNK_TOKENS), strict=True)
        return torch.cat([measure(h, t) for h, t in pieces])

    return whole


@torch.no_grad()
def head_gradient_norms(
    policy: Policy, samples: Sequence[TrainSample], budget: int, temperature: float
) -> list[float]:
    """Norm of d log-prob(what the model wrote) / d LM head weight, for every sample.

    The gradient of a token is d log-prob / d head output, which soft caps and scales are part of,
    outer hidden state; the norm of their sum follows from the inner products of both, chunk by
    chunk, without the gradient itself.
    """
    norms = [0.0] * len(samples)
    for micro in micro_batches(policy, unweighted(samples), Packing(budget)):
        layout, places = micro.layout, [member.place for member in micro.members]
        hidden = policy.response_hidden(layout, micro.prompts)
        lengths = [int(samples[place].response.written.sum()) for place in places]
        parts = zip(hidden.split(lengths), layout.targets.split(lengths), strict=True)
        for place, (h, targets) in zip(places, parts, strict=True):
            squared = _squared_norm(policy, h, targets, temperature)
            norms[place] = max(squared, 0.0) ** 0.5
    return norms


def _squared_norm(policy: Policy, hidden: Tensor, targets: Tensor, temperature: float) -> float:
    def slopes(h: Tensor, t: Tensor) -> Tensor:
        output = policy.head.output(h).requires_grad_()
        with torch.enable_grad():
            logits = policy.head.finish(output.clone())  # which the model may change in place
            log_all = policy_log_softmax(logits, policy.banned, temperature)
            chosen = log_all.gather(-1, t[:, None]).sum()
        return torch.autograd.grad(chosen, output)[0].float()

    chunks = list(zip(hidden.split(CHUNK_TOKENS), targets.split(CHUNK_TOKENS), strict=True))
    total = 0.0
    for i, (h, t) in enumerate(chunks):
        own = slopes(h, t)
        for j, (other_h, other_t) in enumerate(chunks[: i + 1]):
            other = own if i == j else slopes(other_h, other_t)
            inner = ((own @ other.T) * (h.float() @ other_h.float().T)).sum()
            total += float(inner) * (1 if i == j else 2)
    return total


def attach(groups: Sequence[Group], need: str, values: Sequence[object]) -> list[Group]:
    """Let every group carry what was found for its responses, in order, as `need`."""
    left = iter(values)
    own: list[dict[str, Any]] = [{need: [next(left) for _ in g.responses]} for g in groups]
    return [
        replace(g, extra=replace(g.extra, **found)) for g, found in zip(groups, own, strict=True)
    ]


def token_offsets(tokenizer: Any, ids: Ints) -> Ints:
    """Characters of the text before each token, and in all [T + 1].

    Tokens that hold parts of one character stand at its start.
    """
    starts, text, held = [0], 0, []
    for token in ids.tolist():
        held.append(token)
        piece = tokenizer.decode(held, skip_special_tokens=False)
        if piece.endswith(REPLACEMENT):
            starts.append(text)
        else:
            text, held = text + len(piece), []
            starts.append(text)
    return np.array(starts, dtype=np.int64)
