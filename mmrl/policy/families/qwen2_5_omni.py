"""Qwen2.5-Omni's thinker: pictures, clips, sound; boxes in pixels of the resized image."""

from __future__ import annotations

from typing import Any

from mmrl.policy.families import omni
from mmrl.policy.family import Declaration, Family, Limits

DECLARATION = Declaration(
    model_types=("qwen2_5_omni_thinker", "qwen2_5_omni"),
    takes=("image", "screenshot", "video", "audio"),
    space="processed_pixels",
    towers=(f"{omni.ROOT}visual", f"{omni.ROOT}audio_tower"),
    projectors=(f"{omni.ROOT}visual.merger", f"{omni.ROOT}audio_tower.proj"),
    language=omni.LANGUAGE,
    loader="Qwen2_5OmniThinkerForConditionalGeneration",
    video_sound=True,
    vllm=("image", "screenshot", "video", "audio"),
    notes="the thinker; a sound is at most as long as the feature extractor's chunk",
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    hears = processor.feature_extractor.chunk_length
    return omni.build(model, processor, limits, DECLARATION, max_seconds=hears)
