"""Random screens, crops, budgets and families: a click on what the model sees hits the source."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmrl import plugins
from mmrl.modalities import screenshot
from mmrl.policy.family import Family, Limits
from mmrl.types import EncodedMedium, MediaRef
from tests.families.tiny import TINY, build

SEES = [name for name, made in TINY.items() if "image" in made.kinds]
MARK = 12  # pixels of the bright square's side


@cache
def family(name: str, max_pixels: int) -> Family:
    model, processor = build(name)
    limits = Limits(max_prompt_tokens=4000, max_pixels=max_pixels)
    made: Family = plugins.load("family", TINY[name].family).build(model, processor, limits)
    return made


def brightest(encoded: EncodedMedium, merge: int, patch: int) -> tuple[float, float]:
    """The middle of the brightest patch of a grid, in processed pixels."""
    _, rows, columns = (int(n) for n in encoded.tensors["image_grid_thw"][0])
    light = encoded.tensors["pixel_values"].float().mean(dim=-1).numpy()
    # Patches come in blocks of merge x merge.
    grid = light.reshape(rows // merge, columns // merge, merge, merge).swapaxes(1, 2)
    row, column = np.unravel_index(grid.reshape(rows, columns).argmax(), (rows, columns))
    return (column + 0.5) * patch, (row + 0.5) * patch


@pytest.mark.parametrize("name", SEES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(90, 400), st.integers(90, 400)),
    margin=st.integers(0, 20),
    ratio=st.sampled_from([1.0, 1.5, 2.0]),
    max_pixels=st.sampled_from([112 * 112, 224 * 224]),
    at=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
)
def test_a_click_on_what_is_seen_hits_the_source(
    name: str,
    size: tuple[int, int],
    margin: int,
    ratio: float,
    max_pixels: int,
    at: tuple[float, float],
) -> None:
    width, height = size
    crop = (margin, margin // 2, width - margin, height)
    x0, y0 = (
        int(low + f * (high - low - MARK)) for low, high, f in zip(crop, crop[2:], at, strict=False)
    )
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[y0 : y0 + MARK, x0 : x0 + MARK] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    ref = MediaRef("screenshot", buffer.getvalue(), {"crop": crop, "pixel_ratio": ratio})
    made = family(name, max_pixels)
    encoded = made.encode_medium(screenshot.decode(ref))

    middle = (x0 + MARK / 2, y0 + MARK / 2)
    said = encoded.frame.from_source(*middle, made.space)
    assert encoded.frame.to_source(*said, made.space) == pytest.approx(middle)
    clicked = encoded.frame.to_screen(*said, made.space)
    assert clicked == pytest.approx((middle[0] / ratio, middle[1] / ratio))
    if "image_grid_thw" in encoded.tensors:
        patch = made.processor.image_processor.patch_size  # type: ignore[attr-defined]
        merge = made.processor.image_processor.merge_size  # type: ignore[attr-defined]
        seen = brightest(encoded, merge, patch)
        expected = encoded.frame.from_source(*middle, "processed_pixels")
        assert np.abs(np.subtract(seen, expected)).max() <= patch
