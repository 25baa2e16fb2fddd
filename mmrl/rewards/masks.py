"""Masks over a picture: run lengths, polygons, intersection and union."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, UnidentifiedImageError

from mmrl.frame import PICTURE_FORMATS
from mmrl.rewards.boxes import Box
from mmrl.rewards.points import Point
from mmrl.types import Bools

MAX_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class RunLengths:
    """A mask of (width, height) as COCO's uncompressed run lengths: column by column, 0s first."""

    size: tuple[int, int]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        width, height = self.size
        if min(self.counts, default=0) < 0 or sum(self.counts) != width * height:
            raise ValueError(f"run lengths do not cover {width} x {height} pixels")

    def mask(self) -> Bools:
        """The mask [H, W]."""
        values = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(values, self.counts).reshape(self.size).T

    @property
    def area(self) -> int:
        return sum(self.counts[1::2])


def run_lengths(mask: Bools) -> RunLengths:
    """Encode a mask [H, W]."""
    column = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(column)) + 1
    counts = np.diff(np.concatenate([[0], changes, [column.size]])).tolist()
    starts_set = bool(column.size) and bool(column[0])
    return RunLengths((mask.shape[1], mask.shape[0]), (0, *counts) if starts_set else tuple(counts))


def polygon_mask(polygons: Sequence[Sequence[Sequence[float]]], size: tuple[int, int]) -> Bools:
    """Fill polygons given as [[x, y] ...] in pixels, their outlines included; fewer than three
    points raise ValueError."""
    image = Image.new("1", size)
    draw = ImageDraw.Draw(image)
    for polygon in polygons:
        if len(polygon) < 3:
            raise ValueError(f"a polygon of {len(polygon)} points has no area")
        draw.polygon([(float(x), float(y)) for x, y in polygon], fill=1, outline=1)
    return np.array(image, dtype=bool)


def polygon_area(polygon: Sequence[Sequence[float]]) -> float:
    """Area of a simple polygon."""
    xs, ys = np.array(polygon, dtype=float).T
    return abs(float(np.dot(xs, np.roll(ys, 1)) - np.dot(ys, np.roll(xs, 1)))) / 2


def box_mask(box: Box, size: tuple[int, int]) -> Bools:
    """True [H, W] for pixels whose centre lies in a box; `size` is (width, height)."""
    columns, rows = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    across = (columns >= box.x1) & (columns < box.x2)
    down = (rows >= box.y1) & (rows < box.y2)
    return down[:, None] & across[None, :]


def bounding_box(mask: Bools) -> Box:
    """The smallest box around a mask [H, W], in pixels; an empty mask raises ValueError."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise ValueError("an empty mask has no box")
    return Box(*map(float, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)))


def inner_points(mask: Bools, count: int) -> tuple[Point, ...]:
    """Points inside a mask [H, W], over its rows: each the middle of its row's longest run."""
    rows = np.flatnonzero(mask.any(axis=1))
    points = []
    for i in range(count):
        y = int(rows[(2 * i + 1) * len(rows) // (2 * count)])
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask[y].astype(np.int8), [0]])))
        starts, ends = edges[::2], edges[1::2]
        longest = int(np.argmax(ends - starts))
        points.append(Point(float(starts[longest] + ends[longest]) / 2, y + 0.5))
    return tuple(points)


def overlap(found: Bools, gold: Bools, ignore: Bools | None = None) -> tuple[int, int]:
    """Pixels in the intersection and union of masks [H, W], not counting ignored ones."""
    if found.shape != gold.shape:
        raise ValueError(f"a mask of {found.shape} for a picture of {gold.shape}")
    counted = np.ones_like(gold) if ignore is None else ~ignore
    return int((found & gold & counted).sum()), int(((found | gold) & counted).sum())


def iou(intersection: int, union: int) -> float:
    """Intersection over union; two empty masks agree (LISA's rule for pictures without target)."""
    return intersection / union if union else 1.0


def read_mask(source: Path | bytes) -> Bools:
    """Read a mask [H, W] from a picture: what is not black is set; unreadable raises ValueError."""
    with _open(source) as image:
        return np.array(image.convert("L")) > 0


def picture_size(source: Path | bytes) -> tuple[int, int]:
    """(width, height) from a picture's header; unreadable raises ValueError."""
    with _open(source) as image:
        return image.size


def _open(source: Path | bytes) -> Image.Image:
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        image = Image.open(file, formats=PICTURE_FORMATS)
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"not a readable picture: {error}") from None
    if image.size[0] * image.size[1] > MAX_PIXELS:
        raise ValueError(f"a picture of {image.size} pixels is over {MAX_PIXELS}")
    return image
