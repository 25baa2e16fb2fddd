"""GLM-4.1V to 4.6V, GLM-OCR, GLM-GA: patch grids, frames with their second, boxes in 0-1000."""

from __future__ import annotations

from typing import Any

from mmrl.policy.families import grid
from mmrl.policy.family import Declaration, Family, Limits

DECLARATION = Declaration(
    model_types=("glm4v", "glm46v", "glm4v_moe", "glm_ocr", "glmga"),
    takes=("image", "screenshot", "video"),
    space="thousand",
    towers=("model.visual",),
    projectors=("model.visual.downsample", "model.visual.merger"),
    language="model.language_model.layers",
    lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"),
    vllm=("image", "screenshot", "video"),
)
MARKERS = (
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    return grid.build(model, processor, limits, DECLARATION, markers=MARKERS)
