"""Prompts that wait take the seats of answers that have ended; nobody's answer knows of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrl.engines import tape
from mmrl.engines.batch import Batch, Room
from mmrl.engines.decoding import Decoding
from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.policy.attention import active_layout
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.types import Prompt, Response
from tests.families.cases import policy, retyped
from tests.families.tiny import TINY
from tests.rollout.test_tape import prompts_of

LENGTH, SEATS = 40, 5
SAMPLED, GREEDY = Sampling(LENGTH, 1.0), Sampling(LENGTH, 0.0)
COUNTS = [2, 3, 1, 2, 3, 2, 1, 4]


@pytest.fixture(scope="module", params=TINY)
def asked(request: pytest.FixtureRequest) -> tuple[Policy, list[Prompt]]:
    """A model with many ends, so that answers have all lengths, and eight ragged prompts."""
    made = policy(request.param)
    made.family.end_ids = (*made.family.end_ids, *range(60, 66))
    return made, 4 * prompts_of(made, request.param)


def trained(made: Policy, prompts: Sequence[Prompt], groups: list[list[Response]]) -> Tensor:
    rows = [SharedRow.of(p, group) for p, group in zip(prompts, groups, strict=True)]
    layout = lay_out(rows, made.device)
    with active_layout(layout), torch.no_grad():
        return made.logprobs(layout, list(prompts), 1.0)[0]


def flat(groups: list[list[Response]]) -> list[Response]:
    return [answer for group in groups for answer in group]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Live rows of each decoding step."""
    seen: list[int] = []
    step = tape.Steps.__call__

    def counted(steps: tape.Steps, *inputs: Tensor) -> Tensor:
        seen.append(inputs[0].shape[-1])
        return step(steps, *inputs)

    monkeypatch.setattr(tape.Steps, "__call__", counted)
    yield seen


def test_answers_are_the_models_own(asked: tuple[Policy, list[Prompt]], rows: list[int]) -> None:
    made, prompts = asked
    groups = HFEngine(made, SEATS).generate(prompts, COUNTS, SAMPLED, 7)
    assert [len(group) for group in groups] == COUNTS
    assert len({len(answer.ids) for answer in flat(groups)}) > 1
    assert max(rows) <= SEATS and any(b > a for a, b in pairwise(rows))
    found = np.concatenate([answer.logprobs for answer in flat(groups)])
    np.testing.assert_allclose(found, trained(made, prompts, groups), 1e-4, 2e-5)


def test_greedy_answers_know_nothing_of_seats(asked: tuple[Policy, list[Prompt]]) -> None:
    made, prompts = asked
    some, all_at_once = (
        flat(HFEngine(made, seats).generate(prompts, COUNTS, GREEDY, 7)) for seats in (SEATS, 256)
    )
    for mine, other in zip(some, all_at_once, strict=True):
        assert np.array_equal(mine.ids, other.ids)
        np.testing.assert_allclose(mine.logprobs, other.logprobs, 1e-4, 2e-5)


def test_one_long_answer_does_not_hold_those_who_wait(rows: list[int]) -> None:
    """Sixteen prompts at four seats: one answers with 40 tokens, the others with four."""
    made = policy("qwen2_5_vl")
    prompts = 8 * prompts_of(made, "qwen2_5_vl")
    lengths = np.full(16, 4)
    lengths[1] = LENGTH
    play(made, prompts, [1] * 16, lengths, seats=4)
    assert sum(rows) == sum(lengths - 1), "a step feeds each live answer's token, and no other"
    # Waves of four would take 40 + 3 * 4 steps; the fifteen short ones fit beside the long one.
    assert len(rows) == LENGTH - 1


def test_what_is_cached_is_no_more_than_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of four with one long answer each: their prompts stay, and others wait for room."""
    made = policy("qwen2_5_vl")
    prompts = 8 * prompts_of(made, "qwen2_5_vl")[:1]
    size = len(prompts[0].ids)
    held: list[int] = []
    advance = Decoding.advance

    def counted(decoding: Decoding) -> None:
        advance(decoding)
        live = batches[0]._live
        owners = len(set(batches[0]._owners[live]))
        held.append(owners * size + len(live) * LENGTH)

    monkeypatch.setattr(Decoding, "advance", counted)
    batches: list[Batch] = []
    lengths = np.tile([LENGTH, 2, 2, 2], 8)
    play(made, prompts, [4] * 8, lengths, seats=8, made_batches=batches)
    assert max(held) <= 2 * size + 8 * LENGTH


def play(
    made: Policy,
    prompts: Sequence[Prompt],
    counts: Sequence[int],
    lengths: np.ndarray,
    seats: int,
    made_batches: list[Batch] | None = None,
) -> list[list[Response]]:
    """Decode answers of these lengths, as if the model had ended them there."""
    batch = Batch(
        made, prompts, counts, Sampling(LENGTH, 1.0), Room(seats, 10_000), tape.Recordable()
    )
    (made_batches if made_batches is not None else []).append(batch)

    class Ends(set[int]):
        """Every token ends an answer that has its length: asked row by row, in order."""

        def __contains__(self, token: object) -> bool:
            row = batch._live[self.asked]
            self.asked = (self.asked + 1) % len(batch._live)
            return bool(batch._written[row] >= lengths[row])

        asked = 0

    batch._ends = Ends()
    with torch.inference_mode():
        groups = batch.run(torch.Generator().manual_seed(0))
    assert [len(answer.ids) for answer in flat(groups)] == lengths.tolist()
    return groups


def test_in_bfloat16_too() -> None:
    made = policy("qwen2_5_vl")
    retyped(made.model, torch.bfloat16)
    prompts = 4 * prompts_of(made, "qwen2_5_vl")
    made.family.end_ids = (*made.family.end_ids, *range(60, 66))
    groups = HFEngine(made, SEATS).generate(prompts, COUNTS, SAMPLED, 7)
    found = np.concatenate([answer.logprobs for answer in flat(groups)])
    assert np.abs(found - trained(made, prompts, groups).double().numpy()).max() < 0.05
