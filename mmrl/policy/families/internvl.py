"""InternVL in its transformers form: square tiles, videos as numbered frames, boxes in 0-1000."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmrl.policy.families import composed
from mmrl.policy.families.composed import Composed, Encoded, Intake
from mmrl.policy.family import Declaration, Family, Limits

DECLARATION = Declaration(
    model_types=("internvl",),
    takes=("image", "screenshot", "video"),
    space="thousand",
    towers=("model.vision_tower", "model.multi_modal_projector"),
    projectors=("model.multi_modal_projector",),
    language="model.language_model.layers",
    vllm=("image", "screenshot", "video"),
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    placeholder_ids = composed.token_ids(processor, processor.image_token)
    markers = composed.token_ids(
        processor,
        processor.video_token,
        processor.start_image_token,
        processor.end_image_token,
    )

    def tower(media: Encoded) -> list[Tensor]:
        tiles = composed.stacked(media, "pixel_values", model.device)
        out = model.model.get_image_features(tiles, return_dict=True)
        return composed.split(out.pooler_output, media)

    picture = Intake(processor.image_token, composed.images, tower)
    clip = Intake(processor.video_token, composed.videos, tower)
    return Composed(
        model,
        processor,
        limits,
        DECLARATION,
        intakes={"image": picture, "screenshot": picture, "video": clip},
        placeholder_ids=placeholder_ids,
        banned_ids=(*placeholder_ids, *markers),
    )
