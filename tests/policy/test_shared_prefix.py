"""Invariant 1: a group trained as one shared row equals its responses trained alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from mmrl.model_config import ModelConfig
from mmrl.policy.attention import active_layout
from mmrl.policy.encoder import Encoder
from mmrl.policy.model_folder import model_folder
from mmrl.policy.policy import Policy, load_policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.types import Ints, Prompt, Sample
from tests.conftest import TINY

TOLERANCE = 1e-5  # relative, float32

Asker = Callable[..., Sample]


def responses(prompt_number: int, lengths: Sequence[int]) -> tuple[Ints, ...]:
    """Response ids of given lengths from the ordinary vocabulary."""
    rng = np.random.default_rng(prompt_number)
    return tuple(rng.integers(20, 300, length) for length in lengths)


def plain_logprobs(model: torch.nn.Module, row: SharedRow, banned: Tensor) -> list[Tensor]:
    """The reference: one right-padded batch, the library's own positions, its own image copies."""
    prompt, count = row.prompt, len(row.responses)
    longest = max(len(r) for r in row.responses)
    length = len(prompt.ids) + longest
    ids = torch.zeros(count, length, dtype=torch.long)
    mask = torch.zeros(count, length, dtype=torch.long)
    for i, response in enumerate(row.responses):
        whole = np.concatenate([prompt.ids, response])
        ids[i, : len(whole)] = torch.from_numpy(whole)
        mask[i, : len(whole)] = 1
    inputs = {}
    if prompt.media:
        pixels = torch.cat([m.tensors["pixel_values"] for m in prompt.media])
        grids = torch.cat([m.tensors["image_grid_thw"] for m in prompt.media])
        inputs["pixel_values"] = pixels.repeat(count, 1)
        inputs["image_grid_thw"] = grids.repeat(count, 1)
        inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **inputs).logits
    logits = logits.index_fill(-1, banned, float("-inf"))
    start = len(prompt.ids) - 1
    return [
        logits[i, start : start + len(r)].log_softmax(-1)[range(len(r)), r]
        for i, r in enumerate(row.responses)
    ]


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def ragged_rows(encoder: Encoder, ask: Asker, groups: Sequence[Sequence[int]]) -> list[SharedRow]:
    samples = [
        ask("How many digits are there?", (112, 112, 0)),
        ask((140, 84, 1), "and", (60, 100, 2), "Compare the two pictures, please."),
        ask("No picture at all."),
        ask((70, 70, 3)),
    ]
    prompts = [encoder.prompt(sample) for sample in samples]
    return [
        SharedRow(prompt, responses(i, lengths))
        for i, (prompt, lengths) in enumerate(zip(prompts, groups, strict=False))
    ]


RAGGED = {
    "one response each": [[5], [1], [7], [3]],
    "two responses each": [[5, 2], [1, 6], [7, 7], [3, 1]],
    "eight and fewer": [[5, 2, 9, 1, 4, 4, 12, 3], [6, 1], [8], [2, 2, 2, 3, 3, 1, 1, 5]],
    "single tokens only": [[1, 1], [1]],
}


@pytest.mark.parametrize("groups", RAGGED.values(), ids=RAGGED.keys())
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_shared_rows_equal_separate_rows(
    groups: list[list[int]], checkpointing: bool, ask: Asker
) -> None:
    config = ModelConfig(path=TINY, gradient_checkpointing=checkpointing)
    policy = load_policy(config, torch.device("cpu"))
    policy.model.train()
    rows = ragged_rows(Encoder(policy.family), ask, groups)
    reference = AutoModelForImageTextToText.from_pretrained(
        model_folder(TINY), dtype=torch.float32, attn_implementation="sdpa"
    )
    torch.manual_seed(0)
    weights = torch.randn(sum(len(r) for row in rows for r in row.responses))

    layout = lay_out([*rows], policy.device)
    with active_layout(layout):
        shared, _ = policy.logprobs(layout, [row.prompt for row in rows], temperature=1.0)
        (shared * weights).sum().backward()
    plain = torch.cat([lp for row in rows for lp in plain_logprobs(reference, row, policy.banned)])
    (plain * weights).sum().backward()

    assert relative(shared, plain) < TOLERANCE
    expected = dict(reference.named_parameters())
    for name, parameter in policy.model.named_parameters():
        wanted = expected[name].grad
        if wanted is None:
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        scale = float(wanted.norm())
        assert float((parameter.grad - wanted).norm()) / scale < TOLERANCE, name


def shared_logprobs(policy: Policy, rows: Sequence[SharedRow]) -> Tensor:
    layout = lay_out(rows, policy.device)
    with active_layout(layout), torch.no_grad():
        return policy.logprobs(layout, [row.prompt for row in rows], temperature=1.0)[0]


def test_responses_do_not_see_each_other(policy: Policy, encoder: Encoder, ask: Asker) -> None:
    prompt = encoder.prompt(ask("Count.", (112, 112, 0)))
    first, second, other = responses(0, [6, 6, 6])
    alone = shared_logprobs(policy, [SharedRow(prompt, (first,))])
    for neighbour in (second, other):
        both = shared_logprobs(policy, [SharedRow(prompt, (neighbour, first))])
        assert relative(both[6:], alone) < TOLERANCE


def test_rows_do_not_see_each_other(policy: Policy, encoder: Encoder, ask: Asker) -> None:
    rows = ragged_rows(encoder, ask, RAGGED["two responses each"])
    together = shared_logprobs(policy, rows)
    apart = torch.cat([shared_logprobs(policy, [row]) for row in rows])
    assert relative(together, apart) < TOLERANCE
    backwards = shared_logprobs(policy, rows[::-1])
    pieces = backwards.split([sum(map(len, row.responses)) for row in rows[::-1]])
    assert relative(torch.cat(pieces[::-1]), together) < TOLERANCE


def test_media_are_seen(policy: Policy, encoder: Encoder, ask: Asker) -> None:
    ids = responses(0, [6])
    one, two = (encoder.prompt(ask("Count.", (112, 112, seed))) for seed in (0, 1))
    difference = shared_logprobs(policy, [SharedRow(one, ids)]) - shared_logprobs(
        policy, [SharedRow(two, ids)]
    )
    assert float(difference.abs().max()) > 1e-3


class TowerCalls:
    """Counts the tower's calls and the media in them."""

    def __init__(self, policy: Policy) -> None:
        self.calls, self.patches = 0, 0
        (tower,) = policy.family.towers()
        tower.register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        self.calls += 1
        self.patches += len(args[0])


def prompts_with_a_shared_image(encoder: Encoder, ask: Asker) -> list[Prompt]:
    same = (112, 112, 0)
    return [encoder.prompt(ask("a", same)), encoder.prompt(ask("b", same, (56, 84, 1)))]


def test_tower_runs_once_per_distinct_image_and_pass(
    policy: Policy, encoder: Encoder, ask: Asker
) -> None:
    prompts = prompts_with_a_shared_image(encoder, ask)
    rows = [SharedRow(p, responses(i, [3, 4, 5])) for i, p in enumerate(prompts)]
    distinct = {m.hash: len(m.tensors["pixel_values"]) for p in prompts for m in p.media}
    calls = TowerCalls(policy)
    shared_logprobs(policy, rows)
    assert (calls.calls, calls.patches) == (1, sum(distinct.values()))
    shared_logprobs(policy, rows)
    assert calls.calls == 2, "a tower that trains is run again in every pass"


@pytest.mark.parametrize(("projector", "calls"), [(True, 1), (False, 2)])
def test_a_frozen_tower_runs_once_where_its_projector_is_frozen_too(
    projector: bool, calls: int, ask: Asker
) -> None:
    config = ModelConfig(path=TINY, freeze_tower=True, freeze_projector=projector)
    policy = load_policy(config, torch.device("cpu"))
    prompts = prompts_with_a_shared_image(Encoder(policy.family), ask)
    rows = [SharedRow(p, responses(i, [3, 4])) for i, p in enumerate(prompts)]
    seen = TowerCalls(policy)
    first = shared_logprobs(policy, rows)
    assert torch.equal(shared_logprobs(policy, rows), first)
    assert seen.calls == calls
