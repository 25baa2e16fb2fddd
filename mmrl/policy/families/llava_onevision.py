"""LLaVA-OneVision: a lone picture in tiles of any resolution, several as one tile each."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmrl.policy.families import composed
from mmrl.policy.families.composed import Composed, Encoded, Intake
from mmrl.policy.family import Declaration, Family, Limits
from mmrl.types import EncodedMedium, Media

DECLARATION = Declaration(
    model_types=("llava_onevision",),
    takes=("image", "screenshot", "video"),
    space="unit",
    towers=("model.vision_tower", "model.multi_modal_projector", "model.image_newline"),
    projectors=("model.multi_modal_projector", "model.image_newline"),
    language="model.language_model.layers",
    vllm=("image", "screenshot", "video"),
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    placeholder_ids = composed.token_ids(processor, processor.image_token, processor.video_token)
    tower = Tower(model)
    picture = Intake(
        processor.image_token,
        composed.images,
        tower.images,
        more=partial(one_tile, processor),
    )
    clip = Intake(processor.video_token, composed.videos, tower.videos)
    return Composed(
        model,
        processor,
        limits,
        DECLARATION,
        intakes={"image": picture, "screenshot": picture, "video": clip},
        placeholder_ids=placeholder_ids,
        banned_ids=placeholder_ids,
        adapt=together,
    )


def one_tile(processor: Any, media: Media) -> dict[str, Tensor]:
    """The tile [1, 3, H, W] that a picture has among others, and its tokens with the line end."""
    picture = Image.fromarray(media.array)
    two = processor.image_processor([[picture, picture]], return_tensors="pt")
    tokens = processor.num_image_tokens + 1
    if processor.vision_feature_select_strategy == "default":
        tokens -= 1
    tile = two["pixel_values"].flatten(0, -4)[:1]
    return {"tile": tile, "tile_tokens": torch.tensor(tokens)}


def together(media: Encoded) -> Encoded:
    """Give every picture of a prompt that has several its one tile."""
    pictures = [m for m in media if m.kind != "video"]
    if len(pictures) < 2:
        return media
    return [m if m.kind == "video" else _one_tile(m) for m in media]


def _one_tile(medium: EncodedMedium) -> EncodedMedium:
    count = int(medium.tensors["tile_tokens"])
    return dataclasses.replace(
        medium,
        hash=f"{medium.hash}-tile",
        tensors={
            "pixel_values": medium.tensors["tile"][None],
            "image_sizes": medium.tensors["image_sizes"],
            "alone": torch.tensor(False),
        },
        num_tokens=count,
        expansion=medium.expansion[: len(medium.expansion) // medium.num_tokens * count],
    )


class Tower:
    """The vision tower with its projector and line ends."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def images(self, media: Encoded) -> list[Tensor]:
        """One call, [tokens, width] a picture; those that share a prompt come first, as one."""
        order = sorted(range(len(media)), key=lambda i: "alone" not in media[i].tensors)
        shared = sum("alone" in m.tensors for m in media)
        # A sample of one picture would count as alone: that picture is given twice.
        doubled = [order[0], *order] if shared == 1 else order
        parts = [media[i].tensors["pixel_values"][0] for i in doubled]
        most = max(len(part) for part in parts)
        pad = torch.nn.functional.pad
        pixels = torch.stack([pad(p, (0,) * 7 + (most - len(p),)) for p in parts])
        alone = [1] * (len(media) - shared)
        out = self._model.model.get_image_features(
            pixels.to(self._model.device, self._model.dtype),
            torch.cat([media[i].tensors["image_sizes"] for i in doubled]),
            batch_num_images=torch.tensor([max(shared, 2), *alone] if shared else alone),
            return_dict=True,
        )
        rows = out.pooler_output[len(doubled) - len(order) :]
        found = dict(zip(order, rows, strict=True))
        return [found[i] for i in range(len(media))]

    def videos(self, media: Encoded) -> list[Tensor]:
        """One call, [tokens, width] a clip: all frames as one clip, then each its line end."""
        clips = [m.tensors["pixel_values_videos"][0] for m in media]
        out = self._model.model.get_video_features(
            torch.cat(clips)[None].to(self._model.device, self._model.dtype), return_dict=True
        )
        rows, end = out.pooler_output[0, :-1], out.pooler_output[0, -1:]
        pieces = rows.split([m.num_tokens - 1 for m in media])
        return [torch.cat([piece, end]) for piece in pieces]
