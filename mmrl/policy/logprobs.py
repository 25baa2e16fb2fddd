"""Log-probs of chosen tokens from hidden states, a chunk at a time.

Full [tokens, vocabulary] logits are never kept: a chunk's logits live only inside its own forward
and, recomputed, inside its own backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
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
    scaled = logits.float() / temperature
    return scaled.index_fill(-1, banned, float("-inf")).log_softmax(-1)


class HeadTap:
    """Takes the hidden states in front of a model's LM head, and spares it the work.

    Works for every family: the outer model is called as usual, its head gets zero rows. Calling
    the tap with hidden states runs the head itself, with its hooks, so sharding still gathers.
    """

    def __init__(self, head: nn.Module) -> None:
        self._head = head
        self._taking = False
        self._taken: Tensor | None = None
        head.register_forward_pre_hook(self._hook)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Run the LM head: hidden [M, H] -> logits [M, V]."""
        logits: Tensor = self._head(hidden)
        return logits

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Divert the head's input to `taken` for one forward pass of the model."""
        self._taking, self._taken = True, None
        try:
            yield
        finally:
            self._taking = False

    @property
    def taken(self) -> Tensor:
        """The hidden states [1, N, H] of the forward pass made while taking."""
        assert self._taken is not None, "the model's forward did not reach its LM head"
        return self._taken

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not self._taking:
            return None
        self._taken = args[0]
        return (args[0][:, :0],)
