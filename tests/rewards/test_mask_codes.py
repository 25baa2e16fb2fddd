"""Learnt mask tokens: any number of first ones is a mask, the more the finer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmrl.rewards.mask_codes import MaskCodes, learn_codes, load_codes
from mmrl.scoring.tasks import example_answer, fixture_path, load_task
from mmrl.types import Answer, Bools


def discs(count: int, side: int = 48, seed: int = 0) -> list[Bools]:
    rng, grid = np.random.default_rng(seed), np.mgrid[:side, :side]
    found = []
    for _ in range(count):
        (row, column), radius = rng.uniform(12, 36, 2), rng.uniform(6, 12)
        found.append((grid[0] - row) ** 2 + (grid[1] - column) ** 2 < radius**2)
    return found


def iou(one: Bools, other: Bools) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))


def mean_iou(codes: MaskCodes, masks: list[Bools], most: int) -> float:
    drawn = [codes.decode(codes.encode(mask, gain=0.0)[:most], 48) for mask in masks]
    return float(np.mean([iou(d, m) for d, m in zip(drawn, masks, strict=True) if d is not None]))


def test_more_tokens_draw_finer_masks_that_were_not_learnt_from() -> None:
    codes, held_out = learn_codes(discs(200), 8, 16, 16), discs(30, seed=9)
    one, three, eight = (mean_iou(codes, held_out, n) for n in (1, 3, 8))
    assert one < three < eight and eight > one + 0.15


def test_a_run_is_as_short_as_its_gain_asks() -> None:
    codes, masks = learn_codes(discs(200), 8, 16, 16), discs(10, seed=9)
    lengths = [[len(codes.encode(mask, gain)) for mask in masks] for gain in (0.3, 0.1, 0.0)]
    sums = [sum(each) for each in lengths]
    assert sums[0] < sums[1] < sums[2] and min(map(min, lengths)) == 1


def test_a_run_goes_through_the_stages_in_order() -> None:
    """By hand: a mean of 0, and two stages of two codes on one cell."""
    codes = MaskCodes(np.zeros((1, 1)), np.array([0.0, 0.4, 0.0, 0.3]).reshape(2, 2, 1, 1))
    assert codes.size == 4
    drawn = {tokens: codes.decode(tokens, 1) for tokens in [(1,), (1, 3), (0, 3), (1, 2)]}
    assert {tokens: bool(mask.all()) for tokens, mask in drawn.items() if mask is not None} == {
        (1,): False,  # 0.4
        (1, 3): True,  # 0.7
        (0, 3): False,
        (1, 2): False,
    }
    for wrong in ((3,), (1, 1), (1, 3, 3), (2, 1)):
        assert codes.decode(wrong, 1) is None


def test_a_tokenizer_is_a_tasks_decoder(tmp_path: Path) -> None:
    path = tmp_path / "codes.npz"
    learn_codes(discs(60), 4, 6, 16).save(path)
    task = load_task("mask_tokens", {"decoder": str(path)})
    for record in task.records(fixture_path("mask_tokens")):
        sample = task.ask(record)
        blank = example_answer(sample)
        target = task.target(sample, blank)
        assert target is not None
        score = task.score(sample.gold, Answer(target, frames=blank.frames))
        assert score.status == "ok" and score.parts["format"] == 1.0
        jumbled = Answer("<ALTo_Start><TOK_7><TOK_1><ALTo_End>", frames=blank.frames)
        assert "stages in order" in task.score(sample.gold, jumbled).reason
    (tmp_path / "other.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match="no mask tokenizer"):
        load_codes(str(tmp_path / "other.npz"))
