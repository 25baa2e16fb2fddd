"""Records of the GUI grounding benchmarks -> one typed region each.

What a row means follows from its columns or from the task's `layout`, never from magnitudes:

    data_type, img_filename   ScreenSpot (SeeClick) and v2: bbox xywh in pixels
    data_type, no such name   ScreenSpot on the hub: bbox xyxy in 0-1
    ui_type, img_size         ScreenSpot-Pro: bbox xyxy in pixels
    box_type                  OSWorld-G: xywh in pixels, polygon x, y, x, y ..., or refusal

A column `bbox_order` (xyxy, xywh) or `bbox_space` (source_pixels, unit) overrides the layout.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from mmrl.frame import Frame
from mmrl.rewards.points import Point, interior_point
from mmrl.types import Record

_IMAGES = ("image", "img_filename", "file_name", "image_path")
_PLATFORMS = {
    "ios": "mobile", "android": "mobile", "macos": "desktop", "windows": "desktop",
    "tool": "web", "shop": "web", "gitlab": "web", "forum": "web", "web": "web",
}  # fmt: skip
_CONVENTIONS = {
    "screenspot": ("xywh", "source_pixels"),
    "screenspot_hf": ("xyxy", "unit"),
    "screenspot_pro": ("xyxy", "source_pixels"),
    "osworld_g": ("xywh", "source_pixels"),
}


@dataclass(frozen=True)
class Region:
    """The target: two corners of a box, the corners of a polygon, or none for a refusal.

    `space` is source pixels, or "unit": 0-1 of the whole source, not of a crop of it.
    `may_refuse` says whether the prompt offers the refusal.
    """

    kind: Literal["box", "polygon", "refusal"]
    corners: tuple[Point, ...] = ()
    space: Literal["source_pixels", "unit"] = "source_pixels"
    may_refuse: bool = False

    def in_source(self, frame: Frame) -> tuple[Point, ...]:
        """The corners in source pixels."""
        if self.space == "source_pixels":
            return self.corners
        width, height = frame.source_size
        return tuple(Point(p.x * width, p.y * height) for p in self.corners)


@dataclass(frozen=True)
class Screen:
    """A record read: where its picture is, what to look for, and the region."""

    image: Any
    instruction: str
    region: Region
    meta: Mapping[str, Any] = field(default_factory=dict)

    def with_refusal(self) -> Screen:
        """The same with the refusal offered."""
        return dataclasses.replace(self, region=dataclasses.replace(self.region, may_refuse=True))


def read_screen(record: Record, layout: str) -> Screen:
    """Read a record; missing columns, an empty, inverted or non-finite region raise ValueError."""
    fields = record.fields
    layout = _layout_of(fields) if layout == "by_columns" else layout
    image = next((fields[name] for name in _IMAGES if fields.get(name)), None)
    instruction = str(fields.get("instruction") or "").strip()
    if image is None or not instruction:
        raise ValueError("a screen needs an image and an instruction")
    group = fields.get("group") or fields.get("data_source") or layout
    kind = fields.get("ui_type") or fields.get("data_type") or fields.get("box_type") or "any"
    meta = {"group": _PLATFORMS.get(str(group), str(group)), "ui_type": str(kind)}
    for name in ("application", "platform", "instruction_style"):
        if fields.get(name):
            meta[name] = str(fields[name])
    return Screen(image, instruction, _read_region(fields, layout), meta)


def _layout_of(fields: Mapping[str, Any]) -> str:
    if "box_type" in fields:
        return "osworld_g"
    if "ui_type" in fields and "img_size" in fields:
        return "screenspot_pro"
    if "data_type" in fields:
        return "screenspot" if "img_filename" in fields else "screenspot_hf"
    raise ValueError("the columns fit no known layout: set the task's layout")


def _read_region(fields: Mapping[str, Any], layout: str) -> Region:
    order, space = _CONVENTIONS[layout]
    order = str(fields.get("bbox_order", order))
    space = str(fields.get("bbox_space", space))
    if order not in ("xyxy", "xywh") or space not in ("source_pixels", "unit"):
        raise ValueError(f"unknown bbox_order '{order}' or bbox_space '{space}'")
    may_refuse = layout == "osworld_g"
    shape = str(fields.get("box_type", "bbox")) if layout == "osworld_g" else "bbox"
    if shape == "refusal" or fields.get("gt_type") == "negative":
        return Region("refusal", may_refuse=may_refuse)
    if shape not in ("bbox", "polygon"):
        raise ValueError(f"unknown box_type '{shape}'")
    column = "box_coordinates" if layout == "osworld_g" else "bbox"
    values = _numbers(fields.get(column))
    kind: Literal["box", "polygon"] = "polygon" if shape == "polygon" else "box"
    corners = _polygon(values) if kind == "polygon" else _box(values, order)
    if space == "unit" and not all(-0.01 <= v <= 1.01 for v in chain(*corners)):
        raise ValueError(f"box {values} is not within 0-1 as the layout says")
    return Region(kind, corners, "unit" if space == "unit" else "source_pixels", may_refuse)


def _numbers(value: Any) -> list[float]:
    flat = list(chain(*value)) if value and isinstance(value[0], Sequence) else list(value or ())
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in flat):
        raise ValueError(f"not a list of finite numbers: {value!r:.80}")
    return [float(v) for v in flat]


def _box(values: list[float], order: str) -> tuple[Point, ...]:
    if len(values) != 4:
        raise ValueError(f"a box has 4 numbers, found {len(values)}")
    x1, y1, x2, y2 = values
    if order == "xywh":
        x2, y2 = x1 + x2, y1 + y2
    if x1 >= x2 or y1 >= y2:
        raise ValueError(f"empty or inverted box {values}")
    return Point(x1, y1), Point(x2, y2)


def _polygon(values: list[float]) -> tuple[Point, ...]:
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"a polygon has at least 3 points, found {len(values)} numbers")
    corners = tuple(Point(x, y) for x, y in zip(values[::2], values[1::2], strict=True))
    interior_point(corners)
    return corners
