"""Qwen3.5, dense and mixture of experts: three gated delta nets to a layer of attention, 0-1000."""

from __future__ import annotations

from typing import Any

from mmrl.policy.families import grid
from mmrl.policy.family import LINEAR, Declaration, Family, Limits

DECLARATION = Declaration(
    model_types=("qwen3_5", "qwen3_5_moe"),
    takes=("image", "screenshot", "video"),
    space="thousand",
    towers=("model.visual",),
    projectors=("model.visual.merger",),
    language="model.language_model.layers",
    lora_targets=(*LINEAR, "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj"),
    lora_parameters=("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
    notes="experts of the mixture take adapters by lora_parameters",
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    return grid.build(model, processor, limits, DECLARATION)
