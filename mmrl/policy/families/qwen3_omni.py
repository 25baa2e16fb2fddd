"""Qwen3-Omni's thinker: experts, deepstack, sound between frames; boxes in 0-1000."""

from __future__ import annotations

from typing import Any

from mmrl.policy.families import omni
from mmrl.policy.family import Declaration, Family, Limits

DECLARATION = Declaration(
    model_types=("qwen3_omni_moe_thinker", "qwen3_omni_moe"),
    takes=("image", "screenshot", "video", "audio"),
    space="thousand",
    towers=(f"{omni.ROOT}visual", f"{omni.ROOT}audio_tower"),
    projectors=(
        f"{omni.ROOT}visual.merger",
        f"{omni.ROOT}visual.merger_list",
        f"{omni.ROOT}audio_tower.proj1",
        f"{omni.ROOT}audio_tower.proj2",
    ),
    language=omni.LANGUAGE,
    lora_parameters=("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
    loader="Qwen3OmniMoeThinkerForConditionalGeneration",
    video_sound=True,
    vllm=("image", "screenshot", "audio"),
    notes="the thinker",
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    return omni.build(model, processor, limits, DECLARATION)
