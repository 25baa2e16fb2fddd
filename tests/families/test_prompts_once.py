"""Prompts that run once for several passes over their responses, in every family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmrl.policy.attention import active_layout
from mmrl.policy.policy import Policy
from mmrl.policy.prompts import End, Prompts
from mmrl.policy.responses import Responses, go_on
from mmrl.policy.shared_prefix import SharedRow
from tests.families.cases import (
    LARGE_SCORES,
    TOLERANCE,
    ask,
    cases,
    compare_gradients,
    policy,
    relative,
    responses,
    retyped,
    shared,
)
from tests.families.tiny import TINY

LENGTHS = [(5, 2, 9, 1), (1, 1), (6, 6, 12), (3, 8, 1), (4,), (2, 7), (3,), (5, 1)]
"""Some groups end with a pass of nothing but single tokens, which only their prompts predict."""

Send = Callable[[Sequence[Tensor], Sequence[Tensor]], None]


def rows_of(made: Policy, name: str) -> list[SharedRow]:
    asked = cases(TINY[name].kinds).values()
    return [
        SharedRow(ask(made, case), responses(i, lengths))
        for i, (case, lengths) in enumerate(zip(asked, LENGTHS, strict=False))
    ]


def weights_of(rows: Sequence[SharedRow]) -> Tensor:
    count = sum(len(r) for row in rows for r in row.responses)
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def learn_at_once(made: Policy, rows: Sequence[SharedRow]) -> Tensor:
    """Log-probs of all responses in one pass, whose gradients are taken."""
    logprobs = shared(made, rows)
    (logprobs * weights_of(rows)).sum().backward()
    return logprobs.detach()


def learn_in_parts(
    made: Policy, rows: Sequence[SharedRow], send: Send = torch.autograd.backward, size: int = 2
) -> Tensor:
    """The same with each prompt in one pass, its responses in passes of two of them."""
    lengths = [len(r) for row in rows for r in row.responses]
    weights, found = iter(weights_of(rows).split(lengths)), []
    for start in range(0, len(rows), 2):
        chunk = rows[start : start + 2]
        prompts = made.run_prompts([row.prompt for row in chunk])
        for owner, row in enumerate(chunk):
            for at in range(0, len(row.responses), size):
                part = SharedRow(row.prompt, row.responses[at : at + size])
                layout = go_on(prompts, [part], [owner])
                with active_layout(layout):
                    logprobs, _ = made.logprobs(layout, [row.prompt], temperature=1.0)
                    own = torch.cat([next(weights) for _ in part.responses])
                    (logprobs * own).sum().backward()
                found.append(logprobs.detach())
        prompts.back(send)
    return torch.cat(found)


def apart(made: Policy, other: Policy) -> float:
    """How far all gradients are from the other's, those that are missing taken for zeros."""
    found, wanted = (
        torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in weights])
        for weights in (made.model.parameters(), other.model.parameters())
    )
    return relative(found.float(), wanted.float())


every_family = pytest.mark.parametrize("name", TINY)


@every_family
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_parts_equal_the_whole(name: str, checkpointing: bool) -> None:
    made, other = policy(name), policy(name)
    if checkpointing:
        made.model.gradient_checkpointing_enable({"use_reentrant": False})
    rows = rows_of(made, name)
    wanted = learn_at_once(other, rows)
    with made.learning(0):
        found = learn_in_parts(made, rows)
    assert relative(found, wanted) < TOLERANCE
    compare_gradients(made.model, other.model)
    assert apart(made, other) < LARGE_SCORES.get(made.model.config.model_type, TOLERANCE)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "gemma4", "qwen3_5", "lfm2_vl"])
def test_long_ragged_parts_equal_the_whole(name: str) -> None:
    """Behind windows, wide heads and states: answers of 1 to 400 tokens, far beyond any window."""
    made, other = policy(name), policy(name)
    prompt = rows_of(made, name)[0]
    rows = [replace(prompt, responses=responses(5, (1, 400, 3, 97, 211, 64, 65, 2)))]
    wanted = learn_at_once(other, rows)
    found = learn_in_parts(made, rows, size=3)
    assert relative(found, wanted) < LARGE_SCORES.get(made.model.config.model_type, TOLERANCE)
    assert apart(made, other) < 10 * TOLERANCE


def detached(self: Prompts, send: Send) -> None:
    """Responses that teach their prompts nothing."""


def late(self: End, leaf: Any) -> None:
    """Only what the last pass leaves."""
    self._sum, leaf.grad = leaf.grad.float(), None


def shifted(self: Responses, hidden: Tensor) -> Tensor:
    """First tokens predicted by another prompt."""
    return torch.cat([self.prompts.last.flip(0), hidden])[self.predictors]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_5", "gemma3"])
def test_the_comparison_sees_what_is_broken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log-probs alone would let the first of these pass."""
    for kind, broken, in_outputs in (
        (Prompts, detached, False),
        (Responses, shifted, True),
    ):
        made, other = policy(name), policy(name)
        rows = rows_of(made, name)
        wanted = learn_at_once(other, rows)
        with monkeypatch.context() as patch:
            patch.setattr(kind, {detached: "back", shifted: "predicting"}[broken], broken)
            found = learn_in_parts(made, rows)
        assert (relative(found, wanted) > 1e-3) == in_outputs
        assert apart(made, other) > 1e-3


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_5", "gemma3"])
def test_in_bfloat16_parts_are_added_up_in_float32(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many passes are no farther from float32 than one is."""
    exact, one, many = policy(name), policy(name), policy(name)
    for made in (one, many):
        retyped(made.model, torch.bfloat16)
    retyped(exact.model, torch.bfloat16).float()
    prompt = next(iter(rows_of(exact, name)))
    rows = [replace(prompt, responses=responses(3, (3, 7, 1, 12, 5, 5, 2, 9, 4, 6, 8, 11)))]
    learn_at_once(exact, rows)
    learn_at_once(one, rows)
    learn_in_parts(many, rows, size=1)
    at_once = apart(one, exact)
    assert apart(many, exact) < 1.25 * at_once
    monkeypatch.setattr(End, "_collect", late)
    lost = policy(name)
    retyped(lost.model, torch.bfloat16)
    learn_in_parts(lost, rows, size=1)
    assert apart(lost, exact) > 2 * at_once


def test_a_prompt_that_nothing_reaches_has_no_gradient() -> None:
    made = policy("qwen2_5_vl")
    (row, *_) = rows_of(made, "qwen2_5_vl")
    made.run_prompts([row.prompt]).back(torch.autograd.backward)
    assert all(p.grad is None for p in made.model.parameters())
