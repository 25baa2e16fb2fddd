"""A turned picture's Frame finds the pixel of the source, whatever the crop and the space."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from mmrl.frame import Frame, Turn
from mmrl.modalities.image import decode
from mmrl.rewards.boxes import Box, from_source, to_source
from mmrl.types import Media, MediaRef

WIDTH, HEIGHT = 40, 24
MARK = (9, 5)  # x, y of the one black pixel


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def seen(**options: Any) -> tuple[Media, Frame, tuple[float, float]]:
    """The decoded picture, its Frame as if the model saw it unscaled, the middle of the mark."""
    pixels = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    pixels[MARK[1], MARK[0]] = 0
    media = decode(MediaRef("image", png(pixels), options))
    height, width = media.array.shape[:2]
    y, x = (int(axis[0]) for axis in np.nonzero(media.array[:, :, 0] == 0))
    return media, replace(media.frame, processed_size=(width, height)), (x + 0.5, y + 0.5)


@pytest.mark.parametrize("crop", [None, (4, 2, 30, 20)])
@pytest.mark.parametrize("turn", get_args(Turn))
def test_the_mark_maps_back_to_the_source(turn: Turn, crop: tuple[int, ...] | None) -> None:
    media, frame, (x, y) = seen(turn=turn, **({"crop": crop} if crop else {}))
    height, width = media.array.shape[:2]
    upright = (crop[2] - crop[0], crop[3] - crop[1]) if crop else (WIDTH, HEIGHT)
    assert (width, height) == (upright[::-1] if "90" in turn else upright)
    spaces = {
        "processed_pixels": (x, y),
        "unit": (x / width, y / height),
        "thousand": (1000 * x / width, 1000 * y / height),
    }
    middle = (MARK[0] + 0.5, MARK[1] + 0.5)
    for space, point in spaces.items():
        assert frame.to_source(*point, space) == pytest.approx(middle)  # type: ignore[arg-type]
        assert frame.from_source(*middle, space) == pytest.approx(point)  # type: ignore[arg-type]
    assert frame.to_source(3, 4, "source_pixels") == (3, 4)


def test_clockwise_is_clockwise() -> None:
    """Up in the source is right in a picture turned clockwise."""
    _, frame, _ = seen(turn="rotate_90_cw")
    assert frame.from_source(WIDTH / 2, 0, "unit") == pytest.approx((1.0, 0.5))
    assert frame.shift_to_source(0.5, 0.0, "unit") == pytest.approx((0.0, -HEIGHT / 2))


@pytest.mark.parametrize("turn", get_args(Turn))
def test_boxes_stay_upright(turn: Turn) -> None:
    _, frame, _ = seen(turn=turn)
    box = Box(2, 3, 12, 8)
    said = from_source(box, "processed_pixels", frame)
    assert said.x1 < said.x2 and said.y1 < said.y2 and said.area == pytest.approx(box.area)
    assert to_source(said, "processed_pixels", frame) == pytest.approx(box)


def noisy(sigma: float) -> Media:
    grey = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)
    return decode(MediaRef("image", png(grey), {"noise": sigma}))


def test_noise_is_the_same_for_the_same_picture() -> None:
    clean, weak, again, strong = noisy(0), noisy(10), noisy(10), noisy(25)
    assert np.array_equal(weak.array, again.array) and weak.hash == again.hash
    # Greys of 128 are clipped nowhere, so the spread is sigma.
    assert np.std(weak.array.astype(float) - clean.array) == pytest.approx(10, rel=0.1)
    assert np.std(strong.array.astype(float) - clean.array) == pytest.approx(25, rel=0.1)
    assert len({medium.hash for medium in (clean, weak, strong)}) == 3
