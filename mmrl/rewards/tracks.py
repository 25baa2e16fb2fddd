"""Tracks: one box for each of a fixed number of frames, and their mean overlap."""

from __future__ import annotations

from collections.abc import Sequence

from mmrl.rewards.boxes import Box, iou, parse_boxes
from mmrl.rewards.parsed import Parsed, malformed

SUCCESS_THRESHOLDS = tuple(i / 20 for i in range(21))
"""Overlaps 0, 0.05 ... 1 of the success plot."""


def parse_track(text: str, length: int) -> Parsed[tuple[Box, ...]]:
    """Read exactly `length` boxes in order; any other number is malformed."""
    boxes = parse_boxes(text, max_boxes=length)
    if boxes.value is not None and len(boxes.value) != length:
        return malformed(f"{len(boxes.value)} boxes for {length} frames")
    return boxes


def overlaps(gold: Sequence[Box], track: Sequence[Box]) -> list[float]:
    """IoU in each frame of two tracks of one space and length."""
    return [iou(a, b) for a, b in zip(gold, track, strict=True)]


def success(values: Sequence[float], thresholds: Sequence[float] = SUCCESS_THRESHOLDS) -> float:
    """Area under the success plot: mean share of overlaps above each threshold (GOT-10k)."""
    return sum(value > t for t in thresholds for value in values) / len(thresholds) / len(values)
