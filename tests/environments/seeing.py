"""Screens as arrays, and whether two of them are the same but for a browser's odd pixel."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

FEW = 12
"""Values of a screen, three a pixel, that a browser may draw otherwise the next time."""


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def far_apart(one: bytes, other: bytes) -> bool:
    return int((picture(one) != picture(other)).sum()) > FEW
