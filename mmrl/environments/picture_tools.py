"""Tools that look: pure functions of a picture, whose result the next turn shows.

Pictures are PIL images in RGB; places are in the picture's own pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from mmrl.rewards.boxes import Box
from mmrl.rewards.points import Point

SMALLEST = 8
"""Pixels of a crop's shorter side: below, there is nothing to see."""
LINE = (255, 0, 0)


class NotUsable(ValueError):
    """A call that cannot be carried out; its text is for the model."""


@dataclass(frozen=True)
class Places:
    """What a call names of a picture, in its pixels, with what else it says."""

    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    degrees: float = 0.0


@dataclass(frozen=True)
class PictureTool:
    """A tool by its arguments (each a key of a call) and an example of them; what it does in words.

    `look` gives a picture, or a text for what is measured; raises NotUsable with the reason.
    """

    arguments: tuple[str, ...]
    does: str
    look: Callable[[Image.Image, Places], Image.Image | str]


def zoom(picture: Image.Image, at: Places) -> Image.Image:
    """The part of a picture in a box, at the picture's own resolution."""
    box = _inside(picture, _only(at.boxes, "box"))
    corners = (math.floor(box.x1), math.floor(box.y1), math.ceil(box.x2), math.ceil(box.y2))
    if min(corners[2] - corners[0], corners[3] - corners[1]) < SMALLEST:
        raise NotUsable(f"the box is under {SMALLEST} pixels wide or high")
    return picture.crop(corners)


def rotate(picture: Image.Image, at: Places) -> Image.Image:
    """The picture turned clockwise by 90, 180 or 270 degrees."""
    turns: Mapping[float, Image.Transpose] = {
        90.0: Image.Transpose.ROTATE_270,  # Pillow counts counter-clockwise
        180.0: Image.Transpose.ROTATE_180,
        270.0: Image.Transpose.ROTATE_90,
    }
    if at.degrees not in turns:
        raise NotUsable("degrees are 90, 180 or 270")
    return picture.transpose(turns[at.degrees])


def draw(picture: Image.Image, at: Places) -> Image.Image:
    """The picture with boxes outlined and points joined by a line, in red."""
    if not at.boxes and not at.points:
        raise NotUsable("nothing to draw: give bbox_2d or points")
    drawn = picture.copy()
    pen, width = ImageDraw.Draw(drawn), max(2, min(picture.size) // 150)
    for box in at.boxes:
        pen.rectangle(_inside(picture, box), outline=LINE, width=width)
    if len(at.points) > 1:
        pen.line([(p.x, p.y) for p in at.points], fill=LINE, width=width)
    for x, y in at.points:
        pen.ellipse((x - width, y - width, x + width, y + width), fill=LINE)
    return drawn


def measure(picture: Image.Image, at: Places) -> str:
    """The distance between two points, across, down and straight, in the picture's pixels."""
    if len(at.points) != 2:
        raise NotUsable("measure takes two points")
    (x1, y1), (x2, y2) = at.points
    across, down = abs(x2 - x1), abs(y2 - y1)
    return f"{across:.6g} across, {down:.6g} down, {math.hypot(across, down):.6g} straight."


TOOLS: Mapping[str, PictureTool] = {
    "zoom": PictureTool(("bbox_2d",), "shows a part of a picture in full resolution", zoom),
    "rotate": PictureTool(("degrees",), "turns a picture clockwise by 90, 180 or 270", rotate),
    "draw": PictureTool(("bbox_2d", "points"), "outlines a box, joins points by a line", draw),
    "measure": PictureTool(("points",), "says how far two points are apart, in pixels", measure),
}


def png_of(picture: Image.Image) -> bytes:
    """The picture as an encoded medium."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def _only(boxes: Sequence[Box], what: str) -> Box:
    if len(boxes) != 1:
        raise NotUsable(f"it takes one {what}")
    return boxes[0]


def _inside(picture: Image.Image, box: Box) -> Box:
    """The part of a box that is inside the picture."""
    x1, y1 = max(box.x1, 0.0), max(box.y1, 0.0)
    x2, y2 = min(box.x2, float(picture.width)), min(box.y2, float(picture.height))
    if not (x1 < x2 and y1 < y2):
        raise NotUsable("the box is not in the picture")
    return Box(x1, y1, x2, y2)
