"""Attention of one tile with its log-sum-exp, and its backward from that of several tiles.

A query's softmax over several tiles follows from the tiles' outputs and log-sum-exps. Backward,
each tile needs only the joint output and log-sum-exp, and no graph of how they came about:
`exp(score - lse)` are the joint weights, and `sum(grad * out)` is what the softmax takes off.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

SCORES = 2**24
"""Scores that are in memory at a time where no fused kernel runs."""

_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_cpu_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_cuda = torch.ops.aten._scaled_dot_product_flash_attention
_cuda_backward = torch.ops.aten._scaled_dot_product_flash_attention_backward


def statistics(dtype: torch.dtype) -> torch.dtype:
    """The type of log-sum-exps and of sums over tiles: float32, or float64 for itself."""
    return torch.promote_types(dtype, torch.float32)


def forward(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    """Attend: query [B, M, H, D], key and value [B, N, K, D] -> out [B, M, H, D], lse [B, M, H].

    A causal tile has M = N. Heads of queries share those of keys in turn, H / K each.
    """
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    if _fused_on_cpu(query):
        out, lse = _cpu(q, k, v, 0.0, causal, scale=scale)
    elif _on_fast_gpu(query):
        out, lse = _cuda(q, k, v, 0.0, causal, scale=scale)[:2]
    else:
        return _plain(query, key, value, scale, causal)
    return out.transpose(1, 2), lse.transpose(1, 2)


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, shapes as in `forward`.

    `out` and `lse` are joint ones of all tiles that the query has.
    """
    grad, q, k, v, out = (x.transpose(1, 2) for x in (grad, query, key, value, out))
    lse = lse.transpose(1, 2).contiguous()
    if _fused_on_cpu(query):
        grads = _backward_on_cpu(grad, q, k, v, out, lse, scale, causal)
    elif _on_fast_gpu(query):
        # Nothing is dropped, so the generator's state is never read; nor are lengths of no use.
        state = torch.empty(2, dtype=torch.uint64, device=query.device)
        sizes = q.shape[2], k.shape[2]
        grads = _cuda_backward(
            grad, q, k, v, out, lse, None, None, *sizes, 0.0, causal, state, state, scale=scale
        )
    else:
        return _plain_backward(grad, q, k, v, out, lse, scale, causal)
    dq, dk, dv = (g.transpose(1, 2) for g in grads)
    return dq, dk, dv


def _backward_on_cpu(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The kernel's gradients; it gives a thread to each head of keys, so few heads are repeated."""
    heads = k.shape[1]
    times = _repeats(len(k) * heads, q.shape[1] // heads, torch.get_num_threads())
    if times > 1:
        k, v = (x.repeat_interleave(times, 1) for x in (k, v))
    dq, dk, dv = _cpu_backward(grad, q, k, v, out, lse, 0.0, causal, scale=scale)
    if times > 1:
        dk, dv = (x.unflatten(1, (heads, times)).sum(2) for x in (dk, dv))
    return dq, dk, dv


def _repeats(tasks: int, queries: int, threads: int) -> int:
    """As few times as give every thread a task, of those that `queries` a head of keys allow."""
    allowed = [times for times in range(1, queries + 1) if queries % times == 0]
    return next((times for times in allowed if tasks * times >= threads), allowed[-1])


def _fused_on_cpu(query: Tensor) -> bool:
    return query.device.type == "cpu"


def _on_fast_gpu(query: Tensor) -> bool:
    """True where the flash kernels of CUDA take the tensors."""
    return (
        query.device.type == "cuda"
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 256
        and torch.version.hip is None
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _plain(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    """`forward` in matrix products, some queries at a time."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    outs, lses = [], []
    for part in _parts(q, k):
        scores = _scores(q, k, part, scale, causal)
        lse = scores.logsumexp(-1)
        weights = (scores - lse[..., None]).exp().to(v.dtype)
        outs.append(_grouped_product(weights, v))
        lses.append(lse)
    return torch.cat(outs, 2).transpose(1, 2), torch.cat(lses, 2).transpose(1, 2)


def _plain_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    exact = statistics(q.dtype)
    delta = (grad.to(exact) * out.to(exact)).sum(-1)
    dq = torch.empty_like(q)
    dk, dv = (torch.zeros_like(x, dtype=exact) for x in (k, v))
    for part in _parts(q, k):
        weights = (_scores(q, k, part, scale, causal) - lse[:, :, part, None]).exp()
        to_weights = _grouped_product(grad[:, :, part], v.mT).to(exact)
        to_scores = (weights * (to_weights - delta[:, :, part, None]) * scale).to(q.dtype)
        dq[:, :, part] = _grouped_product(to_scores, k)
        dv += _summed_product(weights.to(q.dtype), grad[:, :, part], v.shape[1])
        dk += _summed_product(to_scores, q[:, :, part], k.shape[1])
    found = dq, dk.to(k.dtype), dv.to(v.dtype)
    dq, dk, dv = (x.transpose(1, 2) for x in found)
    return dq, dk, dv


def _parts(q: Tensor, k: Tensor) -> Iterator[slice]:
    step = max(SCORES // max(q.shape[0] * q.shape[1] * k.shape[2], 1), 1)
    for start in range(0, q.shape[2], step):
        yield slice(start, min(start + step, q.shape[2]))


def _scores(q: Tensor, k: Tensor, part: slice, scale: float, causal: bool) -> Tensor:
    """Scores [B, H, m, N] of some queries, with what they do not see at minus infinity."""
    scores = _grouped_product(q[:, :, part], k.mT).to(statistics(q.dtype)) * scale
    if causal:
        later = scores.new_ones(scores.shape[-2:], dtype=torch.bool)
        scores = scores.masked_fill(later.triu(part.start + 1), float("-inf"))
    return scores


def _grouped_product(a: Tensor, b: Tensor) -> Tensor:
    """[B, H, m, x] by [B, K, x, y] -> [B, H, m, y]; H / K heads of `a` share one of `b`."""
    grouped = a.reshape(a.shape[0], b.shape[1], -1, a.shape[-1])
    return (grouped @ b).view(*a.shape[:3], b.shape[-1])


def _summed_product(a: Tensor, b: Tensor, heads: int) -> Tensor:
    """[B, H, m, x] and [B, H, m, y] -> [B, heads, x, y], summed over m and a group's heads."""
    left, right = (x.reshape(x.shape[0], heads, -1, x.shape[-1]) for x in (a, b))
    return left.mT @ right
