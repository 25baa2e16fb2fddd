"""Log-probs of chosen tokens from hidden states, a chunk at a time.

Full [tokens, vocabulary] logits are never kept: a chunk's logits live only inside its own forward
and, recomputed, inside its own backward.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_TOKENS = 1024

Head = Callable[[Tensor], Tensor]


def token_logprobs(
    head: Head,
    hidden: Tensor,
    targets: Tensor,
    banned: Tensor,
    temperature: float,
    chunk_tokens: int = CHUNK_TOKENS,
    at_least: int = 0,
) -> tuple[Tensor, Tensor]:
    """Log-probs [M] (with gradient) and entropies [M] (without) of `targets` under hidden [M, H].

    The policy is the model's distribution at `temperature` over the vocabulary without the
    `banned` ids, exactly what was sampled from. Computed in float32. The head is called
    `at_least` so often, on no rows if need be.
    """

    def chunk(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        log_all = policy_log_softmax(head(hidden), banned, temperature)
        probabilities = log_all.detach().exp()
        entropy = -(probabilities * log_all.detach().clamp_min(-1e4)).sum(-1)
        return log_all.gather(-1, targets[:, None])[:, 0], entropy

    parts = list(zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True))
    parts += [(hidden[:0], targets[:0])] * (at_least - len(parts))
    pieces = [checkpoint(chunk, h, t, use_reentrant=False) for h, t in parts]
    logprobs, entropies = zip(*pieces, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def policy_log_softmax(logits: Tensor, banned: Tensor, temperature: float) -> Tensor:
    """Log-softmax [M, V] in float32 at `temperature`, with banned ids at minus infinity."""
    scaled = logits.float() if temperature == 1 else logits.float() / temperature
    return scaled.index_fill(-1, banned, float("-inf")).log_softmax(-1)
