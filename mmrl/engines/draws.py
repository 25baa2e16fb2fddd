"""What is drawn from a model's logits, and with what log-prob."""

from __future__ import annotations

import torch
from torch import Tensor

from mmrl.engines.engine import Sampling
from mmrl.policy.logprobs import policy_log_softmax
from mmrl.types import Bools


def choose(
    logits: Tensor,
    banned: Tensor,
    greedy: Bools,
    sampling: Sampling,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Choose a token a row of logits [S, V], the likeliest in `greedy` rows [S] -> ids, log-probs.

    Its log-prob is that of the untruncated policy.
    """
    log_all = policy_log_softmax(logits, banned, sampling.temperature or 1.0)
    if greedy.all():
        chosen = log_all.argmax(-1)
    else:
        chosen = draw(truncate(log_all, sampling), generator)
        if greedy.any():
            rows = torch.from_numpy(greedy).to(chosen.device)
            chosen = torch.where(rows, log_all.argmax(-1), chosen)
    return chosen, log_all.gather(-1, chosen[:, None])[:, 0]


def draw(log_all: Tensor, generator: torch.Generator) -> Tensor:
    """Sample an id a row from log-weights [S, V]; one at minus infinity is never drawn."""
    cumulative = log_all.exp().cumsum(-1, dtype=torch.float64)
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
