"""Records of reasoning segmentation -> what to find, in source pixels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmrl.records import file_source
from mmrl.rewards.boxes import Box, gold_box
from mmrl.rewards.masks import (
    RunLengths,
    bounding_box,
    inner_points,
    picture_size,
    polygon_area,
    polygon_mask,
    run_lengths,
)
from mmrl.rewards.points import Point, in_box
from mmrl.types import Bools, Record

_BOX = re.compile(r"<box>\((\d{1,5}),(\d{1,5})\),\((\d{1,5}),(\d{1,5})\)</box>")
_POINT = re.compile(r"\((\d{1,5}),(\d{1,5})\)")


@dataclass(frozen=True, slots=True)
class Target:
    """One object: its box, and points on it."""

    box: Box
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Gold:
    """The objects, and where the data set has them their mask and the pixels that do not count.

    `picture` is the image's path for a segmentation model, "" where the data hold its bytes;
    `budget` is how many words are free.
    """

    targets: tuple[Target, ...]
    mask: RunLengths | None = None
    ignore: RunLengths | None = None
    picture: str = ""
    budget: float | None = None


def read_folder(path: Path) -> Iterator[Record]:
    """One record for each text of each ReasonSeg json file; its picture has the same name."""
    for file in sorted(path.glob("*.json")):
        fields = json.loads(file.read_text(encoding="utf-8"))
        for i, text in enumerate(fields["text"]):
            image = {"image": f"{file.stem}.jpg", **fields, "text": text}
            yield Record(f"{file.stem}-{i}", image, path)


def read_gold(record: Record, points: int) -> Gold:
    """Gold of a ReasonSeg record (`shapes`) or of a Seg-Zero one (`solution`)."""
    source = file_source(record, record.fields["image"])
    picture = str(source) if isinstance(source, Path) else ""
    if "shapes" in record.fields:
        mask, ignore = _masks(record.fields["shapes"], picture_size(source))
        target = Target(bounding_box(mask), inner_points(mask, points))
        ignored = run_lengths(ignore) if ignore.any() else None
        return Gold((target,), run_lengths(mask), ignored, picture)
    return Gold((_solution(str(record.fields["solution"]), points),), picture=picture)


def free_words(fields: Mapping[str, Any]) -> float | None:
    """PixelThink's budget of a record: difficult ones may take longer; None is unlimited.

    A record without a difficulty raises ValueError: a default would silently call it easy.
    """
    if fields.get("difficulty_score") is None or fields.get("uncertainty_score") is None:
        raise ValueError("a budget needs difficulty_score and uncertainty_score")
    difficulty = float(fields["difficulty_score"])
    if difficulty >= 5:
        return 256 + 25 * float(fields["uncertainty_score"])
    return None if difficulty >= 3.5 else 96.0


def _solution(text: str, points: int) -> Target:
    box = _BOX.search(text)
    found = _POINT.findall(text.partition("<points>")[2])
    if box is None or len(found) < points:
        raise ValueError(f"solution without a box and {points} points: {text:.80}")
    corners = gold_box([float(x) for x in box.groups()])
    marks = tuple(Point(float(x), float(y)) for x, y in found[:points])
    if not all(in_box(point, corners) for point in marks):
        raise ValueError(f"gold points {marks} lie outside their box {corners}")
    return Target(corners, marks)


def _masks(shapes: Any, size: tuple[int, int]) -> tuple[Bools, Bools]:
    """Target and ignored pixels; of shapes that overlap the smaller lies on top."""
    target = np.zeros((size[1], size[0]), dtype=bool)
    ignore = target.copy()
    for shape in sorted(shapes, key=lambda s: -polygon_area(s["points"])):
        if shape["label"] not in ("target", "ignore"):
            continue
        area = polygon_mask([shape["points"]], size)
        target, ignore = target & ~area, ignore & ~area
        if shape["label"] == "target":
            target |= area
        else:
            ignore |= area
    if not target.any():
        raise ValueError("no shape labelled 'target'")
    return target, ignore
