from __future__ import annotations

import io
import random
from itertools import permutations

import numpy as np
import pytest
from PIL import Image

from mmrl.rewards.assignment import assign
from mmrl.rewards.boxes import Box
from mmrl.rewards.masks import (
    RunLengths,
    bounding_box,
    box_mask,
    inner_points,
    iou,
    overlap,
    polygon_area,
    polygon_mask,
    read_mask,
    run_lengths,
)


def test_run_lengths_go_down_the_columns_zeros_first() -> None:
    mask = np.array([[0, 1, 1], [0, 0, 1]], dtype=bool)
    assert run_lengths(mask) == RunLengths((3, 2), (2, 1, 1, 2))
    assert run_lengths(~mask).counts == (0, 2, 1, 1, 2)
    assert run_lengths(mask).area == 3


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_round_trip(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 9, 2)) < rng.random()
    assert (run_lengths(mask).mask() == mask).all()


def test_run_lengths_must_cover_the_picture() -> None:
    for counts in ((1, 2), (9,), (7, -1), ()):
        with pytest.raises(ValueError, match="cover"):
            RunLengths((3, 2), counts)


def test_shapes() -> None:
    mask = polygon_mask([[[1, 1], [3, 1], [3, 2], [1, 2]]], (5, 4))
    assert bounding_box(mask) == (1, 1, 4, 3) and mask.sum() == 6
    assert (box_mask(Box(1, 1, 4, 3), (5, 4)) == mask).all()
    assert box_mask(Box(-9, 0.6, 99, 1.4), (5, 4)).sum() == 0
    assert polygon_area([[0, 0], [4, 0], [4, 2], [0, 2]]) == 8
    with pytest.raises(ValueError):
        polygon_mask([[[1, 1], [3, 1]]], (5, 4))
    with pytest.raises(ValueError):
        bounding_box(np.zeros((2, 2), dtype=bool))


def test_inner_points_lie_inside() -> None:
    ring = polygon_mask([[[5, 5], [45, 5], [45, 35], [5, 35]]], (50, 40))
    ring &= ~polygon_mask([[[15, 12], [35, 12], [35, 30], [15, 30]]], (50, 40))
    for x, y in inner_points(ring, 3):
        assert ring[int(y), int(x)]


def test_ignored_pixels_leave_both_counts() -> None:
    found = np.array([[1, 1, 0, 0]], dtype=bool)
    gold = np.array([[0, 1, 1, 0]], dtype=bool)
    assert overlap(found, gold) == (1, 3)
    assert overlap(found, gold, np.array([[1, 0, 0, 1]], dtype=bool)) == (1, 2)
    with pytest.raises(ValueError):
        overlap(found, gold.T)
    assert iou(0, 0) == 1.0 and iou(1, 4) == 0.25


def test_masks_are_read_from_any_picture() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, 3], [255, 0]], dtype=np.uint8)).save(buffer, "PNG")
    assert read_mask(buffer.getvalue()).tolist() == [[False, True], [True, False]]
    with pytest.raises(ValueError):
        read_mask(b"no picture")


@pytest.mark.parametrize("seed", range(50))
def test_assignment_is_the_best_of_all(seed: int) -> None:
    rng = random.Random(seed)
    rows, columns = rng.randint(1, 4), rng.randint(1, 5)
    weights = [[rng.choice((0, 1, 2, rng.random())) for _ in range(columns)] for _ in range(rows)]
    pairs = assign(weights)
    assert len({r for r, _ in pairs}) == len({c for _, c in pairs}) == min(rows, columns)
    wide = weights if rows <= columns else [list(c) for c in zip(*weights, strict=True)]
    best = max(
        sum(wide[r][c] for r, c in enumerate(order))
        for order in permutations(range(len(wide[0])), len(wide))
    )
    assert sum(weights[r][c] for r, c in pairs) == pytest.approx(best)


def test_nothing_to_assign() -> None:
    assert assign([]) == assign([[]]) == []
