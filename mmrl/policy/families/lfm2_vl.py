"""LFM2-VL: short convolutions between layers of attention, pictures in named tiles."""

from __future__ import annotations

from typing import Any

import torch
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
    picture = Intake(processor.image_token, composed.images, Tower(model.model).images)
    return Composed(
        model,
        processor,
        limits,
        DECLARATION,
        intakes={"image": picture, "screenshot": picture},
        placeholder_ids=placeholder_ids,
        banned_ids=(*placeholder_ids, *composed.token_ids(processor, *markers)),
    )


class Tower:
    """The encoder and the projector, each called once for all tiles of all pictures.

    The model's own method calls the projector tile by tile.
    """

    def __init__(self, owner: Any) -> None:
        self._owner = owner

    def images(self, media: Encoded) -> list[Tensor]:
        names = ("pixel_values", "spatial_shapes", "pixel_attention_mask")
        tiles = {name: composed.stacked(media, name, self._owner.device) for name in names}
        encoded = self._owner.vision_tower(**tiles, return_dict=True).last_hidden_state
        projector, shapes = self._owner.multi_modal_projector, tiles["spatial_shapes"].tolist()
        squares = [
            stack(rows[: height * width].unflatten(0, (height, width)), projector.factor)
            for rows, (height, width) in zip(encoded, shapes, strict=True)
        ]
        return composed.split(projector(torch.cat(squares)[None]), media)


def stack(grid: Tensor, factor: int) -> Tensor:
    """Stand the squares of `factor` patches a side of a grid [h, w, C] on one another.

    Gives [h * w / factor, factor, C]: row by row, each square as it was. The projector makes one
    token of a square, whatever stands beside it.
    """
    height, width, _ = grid.shape
    squares = grid.reshape(height // factor, factor, width // factor, factor, -1)
    return squares.transpose(1, 2).flatten(0, 2)
