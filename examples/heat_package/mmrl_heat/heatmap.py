"""Heat maps: a CSV file of numbers, drawn as a picture from blue (low) to red (high)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from mmrl.errors import MediaError
from mmrl.frame import Frame
from mmrl.modalities import options as opts
from mmrl.modalities.image import pixel_hash
from mmrl.modalities.source import resolve
from mmrl.types import Media, MediaRef

MAX_CELLS = 64 * 64


class Options(opts.Options):
    """Of one reference, or of all under `media.heatmap` in a configuration."""

    cell: int = Field(28, gt=0, le=112, description="side of a cell in pixels")
    low: float = Field(0.0, description="the value that is blue")
    high: float = Field(1.0, description="the value that is red")


def decode(ref: MediaRef) -> Media:
    """Draw a grid of numbers as RGB uint8 [rows * cell, columns * cell, 3].

    The Frame counts source pixels in cells, so that a point in the answer maps to a cell. Raises
    MediaError for a file that is no rectangle of finite numbers, or too large.
    """
    options = opts.of(ref, Options)
    if options.high <= options.low:
        raise MediaError("heatmap options: high must be above low")
    grid = _read(resolve(ref, options))
    heat = np.clip((grid - options.low) / (options.high - options.low), 0.0, 1.0)
    colours = np.stack([heat, np.zeros_like(heat), 1.0 - heat], axis=-1)
    cells = np.round(255 * colours).astype(np.uint8)
    array = cells.repeat(options.cell, axis=0).repeat(options.cell, axis=1)
    rows, columns = grid.shape
    return Media(ref.kind, array, Frame(source_size=(columns, rows)), pixel_hash(array))


def _read(source: Path | bytes) -> npt.NDArray[np.float64]:
    text = source if isinstance(source, bytes) else source.read_bytes()
    try:
        grid = np.loadtxt(io.StringIO(text.decode("utf-8")), delimiter=",", ndmin=2)
    except ValueError as error:  # also of bytes that are no text
        raise MediaError(f"heatmap: not a grid of numbers: {error}") from None
    if grid.size == 0 or grid.size > MAX_CELLS or not np.isfinite(grid).all():
        raise MediaError(f"heatmap: {grid.shape} cells, of 1 to {MAX_CELLS} finite numbers")
    return grid
