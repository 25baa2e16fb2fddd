"""Qwen2.5-VL: patch grids, time axis by the second, boxes in pixels of the resized image."""

from __future__ import annotations

from typing import Any

from mmrl.policy.families import grid
from mmrl.policy.family import Declaration, Family, Limits

DECLARATION = Declaration(
    model_types=("qwen2_5_vl",),
    takes=("image", "screenshot", "video"),
    space="processed_pixels",
    towers=("model.visual",),
    projectors=("model.visual.merger",),
    language="model.language_model.layers",
    vllm=("image", "screenshot", "video"),
    notes="text after a video starts at the video's end, unlike in the library",
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    return grid.build(model, processor, limits, DECLARATION, fix_positions=True)
