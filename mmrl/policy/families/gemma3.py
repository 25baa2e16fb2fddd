"""Gemma 3: square pictures whose tokens see each other both ways, layers with sliding windows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmrl.policy.families import composed
from mmrl.policy.families.composed import Composed, Encoded, Intake
from mmrl.policy.family import Declaration, Family, Limits

DECLARATION = Declaration(
    model_types=("gemma3",),
    takes=("image", "screenshot"),
    space="unit",
    towers=("model.vision_tower", "model.multi_modal_projector"),
    projectors=("model.multi_modal_projector",),
    language="model.language_model.layers",
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    tokenizer = processor.tokenizer
    placeholder_ids = composed.token_ids(processor, tokenizer.image_token)
    markers = composed.token_ids(processor, tokenizer.boi_token, tokenizer.eoi_token)

    def tower(media: Encoded) -> list[Tensor]:
        pixels = composed.stacked(media, "pixel_values", model.device)
        out = model.model.get_image_features(pixels, return_dict=True)
        return composed.split(out.pooler_output, media)

    picture = Intake(tokenizer.boi_token, composed.images, tower)
    return Composed(
        model,
        processor,
        limits,
        DECLARATION,
        intakes={"image": picture, "screenshot": picture},
        placeholder_ids=placeholder_ids,
        banned_ids=(*placeholder_ids, *markers),
        blocks=lambda ids: composed.runs(ids, placeholder_ids),
    )
