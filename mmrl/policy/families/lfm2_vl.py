"""LFM2-VL: short convolutions between layers of attention, pictures in named tiles."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmrl.policy.families import composed
from mmrl.policy.families.composed import Composed, Encoded, Intake
from mmrl.policy.family import Declaration, Family, Limits

DECLARATION = Declaration(
    model_types=("lfm2_vl",),
    takes=("image", "screenshot"),
    space="unit",
    vllm=("image", "screenshot"),
    towers=("model.vision_tower", "model.multi_modal_projector"),
    projectors=("model.multi_modal_projector",),
    language="model.language_model.layers",
    lora_targets=("q_proj", "k_proj", "v_proj", "in_proj", "out_proj", "w1", "w2", "w3"),
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    placeholder_ids = composed.token_ids(processor, processor.image_token)
    markers = [
        processor.image_start_token,
        processor.image_end_token,
        processor.image_thumbnail_token,
        *(t for t in processor.tokenizer.get_vocab() if t.startswith("<|img_row_")),
    ]

    def tower(media: Encoded) -> list[Tensor]:
        names = ("pixel_values", "spatial_shapes", "pixel_attention_mask")
        tiles = {name: composed.stacked(media, name, model.device) for name in names}
        out = model.model.get_image_features(**tiles, return_dict=True)
        return composed.split(out.pooler_output, media)

    picture = Intake(processor.image_token, composed.images, tower)
    return Composed(
        model,
        processor,
        limits,
        DECLARATION,
        intakes={"image": picture, "screenshot": picture},
        placeholder_ids=placeholder_ids,
        banned_ids=(*placeholder_ids, *composed.token_ids(processor, *markers)),
    )
