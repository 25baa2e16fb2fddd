"""Gated delta nets for vLLM on CPUs in float32: its own kernels there take bfloat16 alone.

The rest of vLLM is as it is: which tokens of which requests come to a layer, where their states
are kept, convolutions, projections, positions and media. Equations: Yang et al., Gated Delta
Networks, 2024, eq. 10, token by token.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

LEAST_NORM = 1e-6  # squared, as in the library's class


def in_float32(patch: pytest.MonkeyPatch) -> None:
    """Put them into vLLM's layers until the patch ends; before the first of them is built."""
    from vllm import _custom_ops
    from vllm.model_executor.layers.mamba.ops.cpu import gdn_attention as own

    assert not own._CPU_GDN_ATTENTION_OPS_REGISTERED

    def core(qkv: Tensor, b: Tensor, a: Tensor, core_attn_out: Tensor, layer_name: Any) -> None:
        context = own.get_forward_context()
        layer = context.no_compile_layers[own._resolve_layer_name(layer_name)]
        if context.attn_metadata is not None:
            asked = context.attn_metadata[layer.prefix]
            own._cpu_gdn_attention_nonspec(layer, asked, qkv, b, a, core_attn_out)

    patch.setattr(own, "cpu_gdn_attention_core", core)
    patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # convolutions in torch
    patch.setattr(_custom_ops, "fused_gdn_gating_cpu", gates)
    patch.setattr(_custom_ops, "chunk_gated_delta_rule_cpu", prefill)
    patch.setattr(_custom_ops, "fused_sigmoid_gating_delta_rule_update_cpu", step)


def gates(A_log: Tensor, a: Tensor, b: Tensor, dt_bias: Tensor) -> tuple[Tensor, Tensor]:
    """Logs of what is kept and the share that is written, a and b [T, H] -> [1, T, H] each."""
    kept = -A_log.float().exp() * torch.nn.functional.softplus(a + dt_bias)
    return kept[None], b.sigmoid()[None]


def prefill(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor,
    cu_seqlens: Tensor,
    initial_state_indices: Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """Sequences one after the other: query, key [1, T, K, D], value [1, T, H, V] -> as value."""
    ends, out = cu_seqlens.tolist(), value.new_empty(value.shape)
    for slot, start, end in zip(initial_state_indices.tolist(), ends, ends[1:], strict=False):
        here = (x[0, start:end] for x in (query, key, value, g, beta))
        out[0, start:end] = _sequence(*here, initial_state[slot])
    return out, None


def step(
    A_log: Tensor,
    dt_bias: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    initial_state_source: Tensor,
    initial_state_indices: Tensor,
    **_: Any,
) -> Tensor:
    """A token of each of N sequences: as `prefill`."""
    decay, share = gates(A_log, a, b, dt_bias)
    out = v.new_empty(v.shape)
    places = out.flatten(0, 1)
    rows = zip(*(x.flatten(0, 1) for x in (q, k, v, decay, share)), strict=True)
    for i, (row, slot) in enumerate(zip(rows, initial_state_indices.tolist(), strict=True)):
        places[i] = _sequence(*(x[None] for x in row), initial_state_source[slot])[0]
    return out


def _sequence(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    """Tokens of a sequence [T, ...] on its state [H, D, V], which is moved on."""
    repeats = v.shape[1] // k.shape[1]
    q, k = (_normed(x).repeat_interleave(repeats, dim=1) for x in (q, k))
    found = []
    for query, key, value, decay, share in zip(q * q.shape[-1] ** -0.5, k, v, g, beta, strict=True):
        state.mul_(decay.exp()[:, None, None])
        held = torch.einsum("hd,hdv->hv", key, state)
        state.add_(torch.einsum("hd,hv->hdv", key, share[:, None] * (value - held)))
        found.append(torch.einsum("hd,hdv->hv", query, state))
    return torch.stack(found)


def _normed(rows: Tensor) -> Tensor:
    return rows * (rows.square().sum(-1, keepdim=True) + LEAST_NORM).rsqrt()
