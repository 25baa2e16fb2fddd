"""Qwen3-VL, dense and mixture of experts: deepstack features, videos as dated frames, 0-1000."""

from __future__ import annotations

from typing import Any

from mmrl.policy.families import grid
from mmrl.policy.family import Declaration, Family, Limits

DECLARATION = Declaration(
    model_types=("qwen3_vl", "qwen3_vl_moe"),
    takes=("image", "screenshot", "video"),
    space="thousand",
    towers=("model.visual",),
    projectors=("model.visual.merger", "model.visual.deepstack_merger_list"),
    language="model.language_model.layers",
    lora_parameters=("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
    vllm=("image", "screenshot", "video"),
    notes="experts of the mixture take adapters by lora_parameters",
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    return grid.build(model, processor, limits, DECLARATION)
