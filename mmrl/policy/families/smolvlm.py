"""SmolVLM2: pictures in tiles named by row and column, videos as dated frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmrl.policy.families import composed
from mmrl.policy.families.composed import Composed, Encoded, Intake
from mmrl.policy.family import Declaration, Family, Limits
from mmrl.types import Media

DECLARATION = Declaration(
    model_types=("smolvlm",),
    takes=("image", "screenshot", "video"),
    space="unit",
    towers=("model.vision_model", "model.connector"),
    projectors=("model.connector",),
    language="model.text_model.layers",
    vllm=("image", "screenshot", "video"),
    notes="its processor needs the package num2words",
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    placeholder_ids = composed.token_ids(processor, processor.image_token)
    names = [processor.fake_image_token, processor.global_image_token, processor.video_token]
    names += [t for t in processor.tokenizer.get_vocab() if t.startswith("<row_")]

    def tower(media: Encoded) -> list[Tensor]:
        # Tiles of all media in one batch of one: their number differs, their size may too.
        tiles = [m.tensors["pixel_values"][0] for m in media]
        masks = [m.tensors["pixel_attention_mask"][0] for m in media]
        height = max(tile.shape[-2] for tile in tiles)
        width = max(tile.shape[-1] for tile in tiles)

        def padded(parts: list[Tensor]) -> Tensor:
            grown = [
                torch.nn.functional.pad(p, (0, width - p.shape[-1], 0, height - p.shape[-2]))
                for p in parts
            ]
            return torch.cat(grown)[None].to(model.device)

        out = model.model.get_image_features(padded(tiles), padded(masks), return_dict=True)
        return composed.split(out.pooler_output, media)

    picture = Intake(processor.image_token, composed.images, tower)
    clip = Intake(processor.video_token, nested, tower)
    return Composed(
        model,
        processor,
        limits,
        DECLARATION,
        intakes={"image": picture, "screenshot": picture, "video": clip},
        placeholder_ids=placeholder_ids,
        banned_ids=(*placeholder_ids, *composed.token_ids(processor, *names)),
    )


def nested(media: Media) -> dict[str, Any]:
    """Arguments for a clip, videos listed by sample as this processor counts them."""
    arguments = composed.videos(media)
    return {**arguments, "videos": [arguments["videos"]]}
