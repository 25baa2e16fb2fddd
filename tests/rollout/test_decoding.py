"""What a decoding batch holds follows what was written, by count of its keys' and values' bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from mmrl.engines import decoding, prefill
from mmrl.engines.decoding import BLOCK, Decoding
from mmrl.engines.prefill import Prefill
from mmrl.policy.shared_prefix import SharedRow, lay_out
from tests.rollout.test_hf import bare_prompt

HEADS, SIZE = 2, 8
TOKEN = 2 * HEADS * SIZE * 4  # bytes of a token's key and value in the one layer
LIMIT = 16_384


def prefilled(lengths: Sequence[int]) -> Prefill:
    asked = Prefill(lengths)
    rows = lay_out([SharedRow(bare_prompt(n), ()) for n in lengths], torch.device("cpu"))
    key = torch.randn(sum(lengths), HEADS, SIZE)
    asked.part(rows, np.arange(len(lengths))).attend(0, key, key, key, 0.4)
    return asked


def decoding_of(asked: Prefill, owners: np.ndarray, room: int) -> Decoding:
    batch = Decoding(room)
    batch.join(asked, owners)
    return batch


def write(batch: Decoding, live: int, tokens: int) -> None:
    for _ in range(tokens):
        new = torch.randn(live, HEADS, SIZE)
        assert torch.isfinite(batch.attend(0, new, new, new, 0.4)).all()
        batch.advance()


def test_room_follows_what_was_written_and_not_the_limit() -> None:
    batch = decoding_of(prefilled([5, 5]), np.repeat([0, 1], 8), LIMIT)
    assert batch.allocated == TOKEN * 10
    write(batch, 16, 10)
    assert batch.allocated == TOKEN * (10 + 16 * BLOCK)
    write(batch, 16, 290)
    assert TOKEN * 16 * 300 < batch.allocated <= TOKEN * (10 + 16 * 1.5 * 300)


def test_room_ends_at_the_limit() -> None:
    batch = decoding_of(prefilled([5]), np.repeat([0], 3), BLOCK + 7)
    write(batch, 3, BLOCK + 7)
    assert batch.allocated == TOKEN * (5 + 3 * (BLOCK + 7))


def test_one_long_answer_does_not_hold_the_seats_of_the_others() -> None:
    batch = decoding_of(prefilled([50] * 8), np.repeat(np.arange(8), 8), LIMIT)
    write(batch, 64, 40)
    batch.keep(np.array([3]))
    write(batch, 1, 400)
    assert batch.allocated <= TOKEN * (50 + 1.5 * 440)


def test_a_group_that_goes_on_does_not_hold_seats_for_prompts_with_one_answer_left() -> None:
    owners = np.repeat(np.arange(20), 32)
    batch = decoding_of(prefilled([5] * 20), owners, LIMIT)
    write(batch, len(owners), 1)
    live = np.flatnonzero((owners == 4) | (np.arange(len(owners)) % 32 == 0))
    batch.keep(live)
    write(batch, len(live), 1)
    seats = (batch.allocated / TOKEN - 5 * 20) / BLOCK
    assert len(live) == 51 and seats <= 2 * 51 + 2 * decoding.SPARE_SEATS


def test_one_huge_prompt_does_not_pad_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [9000, *[100] * 50, *[120] * 20]
    assert prefilled_bytes(lengths) <= TOKEN * (1.25 * sum(lengths) + 4096)
    monkeypatch.setattr(prefill, "SPARE_TOKENS", 0)
    assert prefilled_bytes(lengths) <= TOKEN * 1.25 * sum(lengths)


def prefilled_bytes(lengths: Sequence[int]) -> int:
    return decoding_of(prefilled(lengths), np.arange(len(lengths)), LIMIT).allocated


def test_queries_may_lie_as_a_model_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Head by head, say, where one head of keys needs no copy."""
    monkeypatch.setitem(globals(), "HEADS", 1)
    apart = torch.randn(4, 6, SIZE).transpose(0, 1)
    key = torch.randn(6, 1, SIZE)
    found = []
    for query in (apart, apart.contiguous()):
        torch.manual_seed(0)
        batch = decoding_of(prefilled([5, 3]), np.repeat([0, 1], 3), LIMIT)
        found.append(batch.attend(0, query, key, key, 0.4))
    assert not apart.is_contiguous()
    torch.testing.assert_close(found[0], found[1])
