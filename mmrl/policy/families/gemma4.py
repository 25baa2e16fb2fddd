"""Gemma 4: pictures, dated video frames and sound; two-way image attention in sliding layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmrl.policy.families import composed
from mmrl.policy.families.composed import Composed, Encoded, Intake
from mmrl.policy.family import Declaration, Family, Limits
from mmrl.types import Media, MediaKind

DECLARATION = Declaration(
    model_types=("gemma4",),
    takes=("image", "screenshot", "video", "audio"),
    space="thousand",
    towers=(
        "model.vision_tower",
        "model.embed_vision",
        "model.audio_tower",
        "model.embed_audio",
    ),
    projectors=("model.embed_vision", "model.embed_audio"),
    language="model.language_model.layers",
    vllm=("image", "screenshot", "video"),
    notes="a sound is at most 30 s long",
)
MAX_SECONDS = 30.0  # its feature extractor takes 480,000 samples of 16 kHz


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    tower = Tower(model.model)
    pictures = composed.token_ids(processor, processor.image_token, processor.video_token)
    sounds = composed.token_ids(processor, processor.audio_token)
    names = (processor.boi_token, processor.eoi_token, processor.boa_token, processor.eoa_token)
    both_ways = model.config.get_text_config().use_bidirectional_attention == "vision"

    def audio(media: Media) -> dict[str, Any]:
        return composed.audio(media, processor.feature_extractor.sampling_rate, MAX_SECONDS)

    picture = Intake(processor.image_token, composed.images, tower.images)
    intakes: dict[MediaKind, Intake] = {
        "image": picture,
        "screenshot": picture,
        "video": Intake(processor.video_token, composed.videos, tower.videos),
    }
    if model.model.audio_tower is not None:
        intakes["audio"] = Intake(processor.audio_token, audio, tower.sounds)
    return Composed(
        model,
        processor,
        limits,
        DECLARATION,
        intakes=intakes,
        placeholder_ids=(*pictures, *sounds),
        banned_ids=(*pictures, *sounds, *composed.token_ids(processor, *names)),
        blocks=lambda ids: composed.runs(ids, pictures) if both_ways else None,
        blocks_slide_only=True,
    )


class Tower:
    """The vision and audio encoders with their projections."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner

    def images(self, media: Encoded) -> list[Tensor]:
        pixels, places = self._patches(media, "pixel_values", "image_position_ids")
        out = self._owner.get_image_features(pixels, places, return_dict=True)
        return composed.split(out.pooler_output, media)

    def videos(self, media: Encoded) -> list[Tensor]:
        # The model's own forward loses the frame counts on the way; here they are handed over.
        pixels, places = self._patches(media, "pixel_values_videos", "video_position_ids")
        counts = torch.tensor([m.tensors["video_position_ids"].shape[-3] for m in media])
        out = self._owner.get_video_features(pixels, places, counts, return_dict=True)
        return composed.split(out.pooler_output, media)

    def sounds(self, media: Encoded) -> list[Tensor]:
        longest = max(m.tensors["input_features"].shape[1] for m in media)
        padded, masks = [], []
        for medium in media:
            spectrum, mask = medium.tensors["input_features"], medium.tensors["input_features_mask"]
            missing = longest - spectrum.shape[1]
            padded.append(torch.nn.functional.pad(spectrum, (0, 0, 0, missing)))
            masks.append(torch.nn.functional.pad(mask, (0, missing)))
        device = self._owner.device
        out = self._owner.get_audio_features(
            torch.cat(padded).to(device, self._owner.dtype),
            torch.cat(masks).to(device),
            return_dict=True,
        )
        return composed.split(out.pooler_output[out.attention_mask], media)

    def _patches(self, media: Encoded, pixels: str, places: str) -> tuple[Tensor, Tensor]:
        """Patches [pictures, most patches, D] and their places, padded to one length."""
        grids = [m.tensors[places].flatten(0, -3) for m in media]
        values = [m.tensors[pixels].flatten(0, -3) for m in media]
        most = max(grid.shape[1] for grid in grids)
        pad = torch.nn.functional.pad
        device = self._owner.device
        return (
            torch.cat([pad(v, (0, 0, 0, most - v.shape[1])) for v in values]).to(device),
            torch.cat([pad(g, (0, 0, 0, most - g.shape[1]), value=-1) for g in grids]).to(device),
        )
