"""Rollout by the model's own `generate`, for families that share nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmrl.engines.engine import Sampling
from mmrl.policy import plain
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.types import Floats, Ints, Prompt


def generate(
    policy: Policy, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
) -> list[list[tuple[Ints, Floats]]]:
    """Token ids [T] and log-probs [T] of counts[i] responses to prompt i.

    The log-probs come from a second, teacher-forced pass: those of the untruncated policy.
    """
    devices = [policy.device] if policy.device.type == "cuda" else []
    groups = []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for prompt, count in zip(prompts, counts, strict=True):
            each = [1] * count if policy.family.one_by_one else [count]
            answers = [a for n in each for a in _answers(policy, prompt, n, sampling)]
            layout = lay_out([SharedRow(prompt, tuple(answers))], policy.device)
            logprobs, _ = policy.logprobs(layout, [prompt], sampling.temperature or 1.0)
            pieces = logprobs.split([len(a) for a in answers])
            values = (piece.double().cpu().numpy() for piece in pieces)
            groups.append(list(zip(answers, values, strict=True)))
    return groups


def _answers(policy: Policy, prompt: Prompt, count: int, sampling: Sampling) -> list[Ints]:
    greedy = sampling.temperature == 0
    drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    front = policy.family.reading.front(prompt.ids)
    ids = torch.from_numpy(front).to(policy.device).expand(count, -1)
    with plain.own_distribution(policy.model, policy.family.reading.start):
        rows = policy.model.generate(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=not greedy,
            suppress_tokens=list(policy.family.banned_ids),
            eos_token_id=list(policy.family.end_ids),
            **({} if greedy else drawn),
            **plain.inputs(policy.family, prompt, ids, torch.ones_like(ids)),
        )[:, ids.shape[1] :]
    ends = torch.isin(rows, torch.tensor(policy.family.end_ids, device=rows.device))
    lengths = torch.where(ends.any(1), ends.int().argmax(1) + 1, rows.shape[1])
    return [row[:n].cpu().numpy() for row, n in zip(rows, lengths.tolist(), strict=True)]
