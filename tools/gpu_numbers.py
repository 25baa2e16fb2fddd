"""The numerical checks of gpu_check.py: shared rows and plain ones, samples and training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.model_config import ModelConfig
from mmrl.policy.attention import active_layout
from mmrl.policy.encoder import Encoder
from mmrl.policy.model_folder import model_folder
from mmrl.policy.policy import DTYPES, Policy, load_policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.types import Ints, MediaRef, Prompt, Sample, Text

TOLERANCE = {"forward": 1e-4, "gradient": 1e-3}
"""Relative, float32: a GPU adds up in another order in every kernel, and a small gradient is a
difference of large ones."""
ROUNDING = 2.0
"""How much further than the plain path in bfloat16 the shared one may be from float32."""
SAMPLED = {"float32": 1e-3, "bfloat16": 0.05}
"""Largest mean distance, in nats, of sampled and trained log-probs."""
GROUPS = ((5, 2, 9, 1, 12), (6, 1), (4, 4, 4), (3,))


def picture(width: int, height: int, seed: int) -> MediaRef:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return MediaRef("image", buffer.getvalue())


def samples() -> list[Sample]:
    """One picture, two, none, and a small one."""
    parts = [
        (picture(112, 112, 0), Text("How many digits are there?")),
        (picture(140, 84, 1), Text("and"), picture(60, 100, 2), Text("Compare them, please.")),
        (Text("No picture at all."),),
        (picture(70, 70, 3), Text("And here?")),
    ]
    return [Sample(str(i), "check", tuple(p), gold=None) for i, p in enumerate(parts)]


def load(path: str, dtype: str) -> tuple[Policy, list[Prompt]]:
    """The model behind its family, and the prompts as the family asks them."""
    policy = load_policy(ModelConfig.model_validate({"path": path, "dtype": dtype}))
    encoder = Encoder(policy.family)
    return policy, [encoder.prompt(sample) for sample in samples()]


def rows_of(prompts: Sequence[Prompt]) -> tuple[list[SharedRow], Tensor]:
    """Fixed responses to the prompts, and a weight for each of their tokens."""
    rng = np.random.default_rng(0)
    rows = [
        SharedRow(prompt, tuple(rng.integers(20, 300, n) for n in lengths))
        for prompt, lengths in zip(prompts, GROUPS, strict=True)
    ]
    return rows, torch.from_numpy(rng.normal(size=sum(map(sum, GROUPS)))).float()


def shared(path: str, dtype: str) -> Found:
    """Log-probs of the responses as shared rows, and the gradient of their weighted sum."""
    policy, prompts = load(path, dtype)
    rows, weights = rows_of(prompts)
    layout = lay_out(rows, policy.device)
    with active_layout(layout):
        logprobs, _ = policy.logprobs(layout, prompts, temperature=1.0)
        (logprobs.float() * weights.to(policy.device)).sum().backward()
    return Found(logprobs, policy.model)


def plain(path: str, dtype: str) -> Found:
    """The same by the library alone: every response with a copy of its prompt and its pictures."""
    policy, prompts = load(path, dtype)  # for the prompts and what is banned
    rows, weights = rows_of(prompts)
    model = AutoModelForImageTextToText.from_pretrained(
        model_folder(path), dtype=DTYPES[dtype], attn_implementation="sdpa"
    ).to(policy.device)
    pieces = [
        _alone(model, row.prompt, response, policy.banned)
        for row in rows
        for response in row.responses
    ]
    logprobs = torch.cat(pieces)
    (logprobs.float() * weights.to(policy.device)).sum().backward()
    return Found(logprobs, model)


def _alone(model: Any, prompt: Prompt, response: Ints, banned: Tensor) -> Tensor:
    device = model.device
    ids = torch.from_numpy(np.concatenate([prompt.ids, response])).to(device)[None]
    more = {
        key: torch.cat([m.tensors[key] for m in prompt.placed]).to(device)
        for key in (prompt.placed[0].tensors if prompt.media else ())
    }
    if prompt.media:
        more["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    logits = model(input_ids=ids, use_cache=False, **more).logits[0].float()
    predicted = logits[len(prompt.ids) - 1 : -1].index_fill(-1, banned, float("-inf"))
    return predicted.log_softmax(-1)[range(len(response)), response]


class Found:
    """What a pass gave, on the CPU and in float32."""

    def __init__(self, logprobs: Tensor, model: Any) -> None:
        named = model.named_parameters()
        self.logprobs = logprobs.detach().float().cpu()
        self.gradients = {n: p.grad.float().cpu() for n, p in named if p.grad is not None}

    def from_exact(self, exact: Found) -> dict[str, float]:
        """Relative distances: over all log-probs, and over all parameters' gradients together."""
        assert self.gradients.keys() == exact.gradients.keys(), "other parameters learn"
        both = ([f.gradients[n].flatten() for n in exact.gradients] for f in (self, exact))
        return {
            "forward": distance(self.logprobs, exact.logprobs),
            "gradient": distance(*map(torch.cat, both)),
        }


def distance(found: Tensor, wanted: Tensor) -> float:
    """Relative, over all numbers."""
    return float((found - wanted).norm() / wanted.norm())


def shared_prefix(path: str) -> dict[str, Any]:
    """Shared rows against one copy of prompt and media a response, in float32 and bfloat16."""
    exact = plain(path, "float32")
    near = shared(path, "float32").from_exact(exact)
    half = {
        "shared": shared(path, "bfloat16").from_exact(exact),
        "plain": plain(path, "bfloat16").from_exact(exact),
    }
    ok = all(near[part] <= TOLERANCE[part] for part in near)
    ok &= all(half["shared"][part] <= ROUNDING * half["plain"][part] for part in near)
    figures = {"float32": {"shared": near}, "bfloat16": half}
    return {"passed": ok, "figures": figures, "limits": {**TOLERANCE, "rounding": ROUNDING}}


def sampled_logprobs(path: str) -> dict[str, Any]:
    """What the embedded engine says of its samples against the trainer's own pass over them."""
    figures, ok = {}, True
    for dtype, limit in SAMPLED.items():
        policy, prompts = load(path, dtype)
        gaps = np.concatenate(list(gaps_of(policy, prompts)))
        figures[dtype] = {
            "tokens": len(gaps),
            "mean": float(gaps.mean()),
            "p99": float(np.quantile(gaps, 0.99)),
            "max": float(gaps.max()),
        }
        ok &= bool(gaps.mean() <= limit)
    return {"passed": ok, "figures": figures, "limits": SAMPLED}


def gaps_of(policy: Policy, prompts: Sequence[Prompt]) -> Any:
    """Distances [T] of sampled and trained log-probs, prompt by prompt."""
    sampling = Sampling(32, temperature=1.0)
    groups = HFEngine(policy).generate(prompts, [8] * len(prompts), sampling, seed=1)
    for prompt, group in zip(prompts, groups, strict=True):
        row = SharedRow(prompt, tuple(r.ids for r in group))
        layout = lay_out([row], policy.device)
        with active_layout(layout), torch.no_grad():
            trained, _ = policy.logprobs(layout, [prompt], temperature=1.0)
        said = np.concatenate([r.logprobs for r in group])
        yield np.abs(trained.double().cpu().numpy() - said)
