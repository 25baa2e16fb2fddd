"""A click on a pixel that the model sees lands on the right pixel of the source."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmrl.frame import Frame, Space
from mmrl.modalities.screenshot import decode
from mmrl.types import MediaRef

SEEN: tuple[Space, ...] = ("processed_pixels", "unit", "thousand")


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    width, height = draw(st.integers(1, 8000)), draw(st.integers(1, 8000))
    crop = None
    if draw(st.booleans()):
        x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
        crop = (float(x0), float(y0), float(x1), float(y1))
    return Frame(
        source_size=(width, height),
        processed_size=(draw(st.integers(1, 4000)), draw(st.integers(1, 4000))),
        crop=crop,
        pixel_ratio=draw(st.sampled_from([1.0, 1.25, 1.5, 2.0, 3.0])),
    )


POINT = st.floats(0, 1, allow_subnormal=False)


@given(frames(), st.sampled_from(SEEN), POINT, POINT)
def test_round_trip(frame: Frame, space: Space, x: float, y: float) -> None:
    x0, y0, x1, y1 = frame.crop or (0.0, 0.0, *map(float, frame.source_size))
    source = x0 + x * (x1 - x0), y0 + y * (y1 - y0)
    said = frame.from_source(*source, space)
    assert frame.to_source(*said, space) == pytest.approx(source, abs=1e-6)
    screen = frame.to_screen(*said, space)
    assert screen == pytest.approx([v / frame.pixel_ratio for v in source], abs=1e-6)
    assert frame.to_source(*screen, "screen") == pytest.approx(source, abs=1e-6)


@given(frames(), POINT, POINT)
def test_spaces_agree_with_each_other(frame: Frame, x: float, y: float) -> None:
    width, height = frame.processed_size
    same = [
        frame.to_source(x * width, y * height, "processed_pixels"),
        frame.to_source(x, y, "unit"),
        frame.to_source(x * 1000, y * 1000, "thousand"),
    ]
    assert same[1] == pytest.approx(same[0], abs=1e-6)
    assert same[2] == pytest.approx(same[0], abs=1e-6)


@given(frames(), st.sampled_from(SEEN), POINT, POINT, POINT, POINT)
def test_shifts_and_boxes_follow_points(
    frame: Frame, space: Space, x: float, y: float, dx: float, dy: float
) -> None:
    start, end = frame.to_source(x, y, space), frame.to_source(x + dx, y + dy, space)
    shift = frame.shift_to_source(dx, dy, space)
    assert shift == pytest.approx((end[0] - start[0], end[1] - start[1]), abs=1e-6)
    assert frame.box_to_source((x, y, x + dx, y + dy), space) == (*start, *end)


@given(
    st.integers(40, 160),
    st.integers(40, 160),
    st.sampled_from([1.0, 2.0]),
    st.booleans(),
    st.floats(0.05, 0.95),
    st.floats(0.05, 0.95),
)
def test_a_click_on_a_drawn_button_hits_it(
    width: int, height: int, ratio: float, cropped: bool, right: float, low: float
) -> None:
    crop = (width // 4, height // 4, width, height) if cropped else None
    x0, y0, x1, y1 = crop or (0, 0, width, height)
    button = int(x0 + right * (x1 - x0)), int(y0 + low * (y1 - y0))
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[button[1], button[0]] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    media = decode(MediaRef("screenshot", buffer.getvalue(), {"crop": crop, "pixel_ratio": ratio}))
    row, column = np.argwhere(media.array[:, :, 0] == 255)[0]
    seen_height, seen_width = media.array.shape[:2]
    # The model answers with the middle of the bright pixel, in 0-1 of what it sees.
    said = (column + 0.5) / seen_width, (row + 0.5) / seen_height
    x, y = media.frame.to_source(*said, "unit")
    assert (int(x), int(y)) == button
    assert media.frame.to_screen(*said, "unit") == pytest.approx((x / ratio, y / ratio))
