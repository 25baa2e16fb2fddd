"""Random screens, crops, budgets and families: a click on what the model sees hits the source."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmrl import plugins
from mmrl.modalities import screenshot
from mmrl.policy.family import Family, Limits
from mmrl.types import EncodedMedium, MediaRef
from tests.families.tiny import TINY, build

SEES = [name for name, made in TINY.items() if "image" in made.kinds]
Light = npt.NDArray[np.float32]
MARK = 12  # pixels of the bright square's side


@cache
def family(name: str, max_pixels: int) -> Family:
    model, processor = build(name)
    limits = Limits(max_prompt_tokens=4000, max_pixels=max_pixels)
    made: Family = plugins.load("family", TINY[name].family).build(model, processor, limits)
    return made


def seen(encoded: EncodedMedium, made: Family) -> Light:
    """What the tower gets of a picture as a whole [H, W]: light from 0 to 1.

    Read from each kind of processor output by itself, without the Frame under test.
    """
    tensors, processor = encoded.tensors, made.processor.image_processor  # type: ignore[attr-defined]
    pixels = tensors["pixel_values"].float()
    if "image_grid_thw" in tensors:  # patches, in blocks of merge x merge
        _, rows, columns = (int(n) for n in tensors["image_grid_thw"][0])
        merge = processor.merge_size
        light = pixels.mean(-1).reshape(rows // merge, columns // merge, merge, merge)
        image = light.swapaxes(1, 2).reshape(rows, columns)
    elif "image_grid_hw" in tensors:  # patches row by row
        image = pixels.mean(-1).reshape(tensors["image_grid_hw"][0].tolist())
    elif "spatial_shapes" in tensors:  # patches row by row, of the whole picture last
        rows, columns = (int(n) for n in tensors["spatial_shapes"][-1])
        image = pixels[-1, : rows * columns].mean(-1).reshape(rows, columns)
    elif "image_position_ids" in tensors:  # patches with their column and row
        places = tensors["image_position_ids"][0]
        there = places[:, 0] >= 0
        x, y = places[there].unbind(-1)
        image = torch.full((int(y.max()) + 1, int(x.max()) + 1), float("nan"))
        image[y, x] = pixels[0, there].mean(-1)
        assert not image.isnan().any()
    else:  # tiles: the whole picture is the first of LLaVA-OneVision's, elsewhere the last
        tiles = pixels.flatten(0, -4)
        image = tiles[0 if "image_sizes" in tensors else -1].mean(0)
    low, high = float(image.min()), float(image.max())
    return ((image - low) / (high - low)).numpy()


def brightest(light: Light) -> tuple[float, float]:
    """The middle of what is bright, as shares of the width and height that the model sees."""
    bright = np.where(light > 0.5, light, 0.0)
    height, width = light.shape
    x = (bright.sum(0) * (np.arange(width) + 0.5)).sum() / bright.sum()
    y = (bright.sum(1) * (np.arange(height) + 0.5)).sum() / bright.sum()
    return x / width, y / height


def test_every_convention_is_that_of_a_family() -> None:
    spaces = {family(name, 112 * 112).space for name in SEES}
    assert spaces == {"processed_pixels", "unit", "thousand"}


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

    # The model points at what it sees; where that is comes from its input alone.
    light = seen(encoded, made)
    u, v = brightest(light)
    across, down = {
        "unit": (1.0, 1.0),
        "thousand": (1000.0, 1000.0),
        "processed_pixels": encoded.frame.processed_size,
    }[made.space]
    hit = encoded.frame.to_source(u * across, v * down, made.space)
    for found, wanted, side, cells in zip(
        hit, middle, (crop[2] - crop[0], crop[3] - crop[1]), light.shape[::-1], strict=True
    ):
        assert abs(found - wanted) <= side / cells, (name, light.shape)
