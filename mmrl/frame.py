"""Where a place in a medium is: what the model sees and says, mapped back to the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Space = Literal["source_pixels", "screen", "processed_pixels", "unit", "thousand"]
"""Where a pair of numbers points: pixels of the source file, points of the screen that a
screenshot shows (pixels over its pixel ratio), pixels as the model sees them, 0-1 of what the
model sees, or 0-1000 of what the model sees."""
Corners = tuple[float, float, float, float]
Turn = Literal["rotate_90_cw", "rotate_90_ccw", "rotate_180", "mirror", "upside_down", "mirror_180"]
"""A rotation or flip: `mirror` swaps left and right, `upside_down` top and bottom, `mirror_180` is
a flip of both, which is a rotation by 180 degrees."""
Affine = tuple[tuple[int, int, int], tuple[int, int, int]]
UNTURN: Mapping[Turn, Affine] = {
    "rotate_90_cw": ((0, 1, 0), (-1, 0, 1)),
    "rotate_90_ccw": ((0, -1, 1), (1, 0, 0)),
    "rotate_180": ((-1, 0, 1), (0, -1, 1)),
    "mirror": ((-1, 0, 1), (0, 1, 0)),
    "upside_down": ((1, 0, 0), (0, -1, 1)),
    "mirror_180": ((-1, 0, 1), (0, -1, 1)),
}
"""From a point of the turned picture to the one before, both in 0-1: two rows of (x, y, 1)."""
PICTURE_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI"),
    *("TGA", "TIFF", "WEBP"),
)
"""Formats that pictures are read in, by Pillow's names, whatever a file is called. None of them
starts another program, as PostScript would."""


Place = Literal["box", "point", "polygon", "interval"]
Whose = Literal["gold", "answer"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place that a score knew or read, in source pixels, of an interval in source seconds.

    `numbers` are x1, y1, x2, y2 of a box, x, y of a point or of each corner of a polygon, start and
    end of an interval. `medium` numbers the answer's frames, `shown` the frames shown of a clip; in
    an episode a place is on the screen that the `turn` was written at.
    """

    kind: Place
    whose: Whose
    numbers: tuple[float, ...]
    label: str = ""
    medium: int = 0
    shown: int | None = None
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """How a medium was cropped and resized, so that what the model sees maps back to the source.

    Sizes are (width, height) in pixels. `crop` is (x0, y0, x1, y1) in source pixels.
    `seconds` are the source timestamps of the processed frames (video) or the start and end of
    the processed segment (audio); `indices` the frames' numbers in the source video and `fps` its
    rate; `reader` is the library and version that decoded it, or from which range a picture's greys
    were scaled. `pixel_ratio` is the pixels of a screenshot to one point of the screen it shows.
    `turn` is how the picture was rotated or flipped after the crop.
    """

    source_size: tuple[int, int] = (0, 0)
    processed_size: tuple[int, int] = (0, 0)
    crop: Corners | None = None
    seconds: tuple[float, ...] = ()
    indices: tuple[int, ...] = ()
    fps: float = 0.0
    reader: str = ""
    pixel_ratio: float = 1.0
    turn: Turn | None = None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Frame:
        """Read back what `asdict`, and then JSON, made of a Frame."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**plain)

    def to_source(self, x: float, y: float, space: Space) -> tuple[float, float]:
        """Map a point the model gave in `space` to source pixels."""
        if self.turn is not None and space not in ("source_pixels", "screen"):
            across, down = self._seen_extent(space)
            (a, b, e), (c, d, f) = UNTURN[self.turn]
            u, v = x / across, y / down
            x0, y0, x1, y1 = self._cropped
            return x0 + (a * u + b * v + e) * (x1 - x0), y0 + (c * u + d * v + f) * (y1 - y0)
        dx, dy = self.shift_to_source(x, y, space)
        if space in ("source_pixels", "screen") or self.crop is None:
            return dx, dy
        return self.crop[0] + dx, self.crop[1] + dy

    def from_source(self, x: float, y: float, space: Space) -> tuple[float, float]:
        """Map a point in source pixels to what the model would have to say in `space`."""
        if self.turn is not None and space not in ("source_pixels", "screen"):
            across, down = self._seen_extent(space)
            (a, b, e), (c, d, f) = UNTURN[self.turn]
            x0, y0, x1, y1 = self._cropped
            u, v = (x - x0) / (x1 - x0) - e, (y - y0) / (y1 - y0) - f
            return (a * u + c * v) * across, (b * u + d * v) * down  # turns are orthogonal
        if space not in ("source_pixels", "screen") and self.crop is not None:
            x, y = x - self.crop[0], y - self.crop[1]
        across, down = self._source_units(space)
        return x / across, y / down

    def shift_to_source(self, dx: float, dy: float, space: Space) -> tuple[float, float]:
        """Map a displacement (a scroll, a drag's vector) in `space` to source pixels."""
        if self.turn is not None and space not in ("source_pixels", "screen"):
            (x, y), (x0, y0) = self.to_source(dx, dy, space), self.to_source(0.0, 0.0, space)
            return x - x0, y - y0
        across, down = self._source_units(space)
        return dx * across, dy * down

    def box_to_source(self, box: Corners, space: Space) -> Corners:
        """Map the corners (x0, y0, x1, y1) of a box in `space` to source pixels."""
        return (*self.to_source(*box[:2], space), *self.to_source(*box[2:], space))

    def to_screen(self, x: float, y: float, space: Space) -> tuple[float, float]:
        """Map a point in `space` to points of the screen, where a click is carried out."""
        return self.from_source(*self.to_source(x, y, space), "screen")

    def in_unit(self, mark: Mark) -> tuple[float, ...]:
        """A mark's numbers in 0-1 of what the model sees; an interval's stay seconds."""
        if mark.kind == "interval":
            return mark.numbers
        pairs = zip(mark.numbers[::2], mark.numbers[1::2], strict=True)
        return tuple(number for x, y in pairs for number in self.from_source(x, y, "unit"))

    @property
    def _cropped(self) -> Corners:
        width, height = self.source_size
        return self.crop or (0.0, 0.0, float(width), float(height))

    def _source_units(self, space: Space) -> tuple[float, float]:
        """Source pixels (across, down) to one unit of `space`."""
        if space == "source_pixels":
            return 1.0, 1.0
        if space == "screen":
            return self.pixel_ratio, self.pixel_ratio
        x0, y0, x1, y1 = self._cropped
        width, height = self._seen_extent(space)
        return (x1 - x0) / width, (y1 - y0) / height

    def _seen_extent(self, space: Space) -> tuple[float, float]:
        if space == "processed_pixels":
            return float(self.processed_size[0]), float(self.processed_size[1])
        side = 1.0 if space == "unit" else 1000.0
        return side, side
