"""Nemotron-H Omni: Mamba2 between attention and experts, frames in pairs with their seconds, sound.

Pictures and clips have the same placeholder: the library's own forward takes one kind in a prompt.
Of sounds side by side, padded, its last row of one would see the padding: each is heard alone.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.video_utils import VideoMetadata

from mmrl.errors import MediaError
from mmrl.policy.families import composed
from mmrl.policy.families.composed import TICKS, Composed, Encoded, Intake
from mmrl.policy.family import Declaration, Family, Limits
from mmrl.types import Media, MediaKind

DECLARATION = Declaration(
    model_types=("nemotron_h_omni",),
    takes=("image", "screenshot", "video", "audio"),
    space="unit",
    towers=(
        *("vision_model", "vision_final_layernorm", "multi_modal_projector"),
        *("audio_tower", "embed_audio"),
    ),
    projectors=("multi_modal_projector", "embed_audio"),
    language="language_model.model.layers",
    lora_targets=(
        *("q_proj", "k_proj", "v_proj", "o_proj", "in_proj", "out_proj", "up_proj", "down_proj"),
    ),
    lora_parameters=("mixer.experts.up_proj", "mixer.experts.down_proj"),
    apart=("video", "audio"),
    notes="its processor needs librosa (mmrl[audio]); experts take adapters by lora_parameters",
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    pictures = composed.token_ids(processor, processor.image_token, processor.video_token)
    sounds = composed.token_ids(processor, processor.audio_token)
    markers = (
        *(processor.image_start_token, processor.image_end_token),
        *(processor.audio_start_token, processor.audio_end_token),
    )
    tower = Tower(model)
    budget = _budget(processor.image_processor, limits)

    def image(media: Media) -> dict[str, Any]:
        return {**composed.images(media), "images_kwargs": budget}

    def audio(media: Media) -> dict[str, Any]:
        return sound(media, processor.feature_extractor.sampling_rate, processor.audio_hop_length)

    picture = Intake(processor.image_token, image, tower.images, size=_size(processor))
    intakes: dict[MediaKind, Intake] = {
        "image": picture,
        "screenshot": picture,
        "video": Intake(processor.video_token, videos, tower.videos),
    }
    if model.audio_tower is not None:
        intakes["audio"] = Intake(processor.audio_token, audio, tower.sounds)
    return Composed(
        model,
        processor,
        limits,
        DECLARATION,
        intakes=intakes,
        placeholder_ids=(*pictures, *sounds),
        banned_ids=(*pictures, *sounds, *composed.token_ids(processor, *markers)),
    )


def sound(media: Media, rate: int, hop: int) -> dict[str, Any]:
    """Processor arguments for one sound; one of a single window has no spread to divide by."""
    given = composed.audio(media, rate)
    (samples,) = given["audio"]
    if len(samples) < 2 * hop:
        raise MediaError(
            f"audio of {len(samples) / rate:g} s is too short: "
            f"this family hears {2 * hop / rate:g} s or more"
        )
    return given


def videos(media: Media) -> dict[str, Any]:
    """Processor arguments for one clip, by a clock of milliseconds.

    The processor cuts a frame's length to whole milliseconds before it counts frames.
    """
    given = composed.videos(media)
    (metadata,) = given["videos_kwargs"]["video_metadata"]
    clocked = {
        **metadata,
        "fps": float(TICKS),
        "frames_indices": [round(second * TICKS) for second in media.frame.seconds],
    }
    return {
        **given,
        "videos_kwargs": {**given["videos_kwargs"], "video_metadata": VideoMetadata(**clocked)},
    }


def _budget(image_processor: Any, limits: Limits) -> dict[str, int]:
    """The run's budget of pixels as patches, where it has one."""
    area = image_processor.patch_size**2
    asked = {"min_num_patches": limits.min_pixels, "max_num_patches": limits.max_pixels}
    return {key: max(pixels // area, 1) for key, pixels in asked.items() if pixels}


def _size(processor: Any) -> Any:
    patch = processor.image_processor.patch_size
    return lambda tensors: tuple(int(side) * patch for side in tensors["image_grid_hw"][0, [1, 0]])


class Tower:
    """The towers: one call for all pictures, one for each clip and for each sound."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def images(self, media: Encoded) -> list[Tensor]:
        pixels = composed.stacked(media, "pixel_values", self._model.device)
        grids = composed.stacked(media, "image_grid_hw", self._model.device)
        return list(self._model.get_image_features(pixels, grids, return_dict=True).pooler_output)

    def videos(self, media: Encoded) -> list[Tensor]:
        return self._one_by_one(media, self._model.get_video_features, "pixel_values_videos")

    def sounds(self, media: Encoded) -> list[Tensor]:
        named = ("input_features", "input_features_mask")
        return self._one_by_one(media, self._model.get_audio_features, *named)

    def _one_by_one(self, media: Encoded, tower: Any, *named: str) -> list[Tensor]:
        found = []
        for medium in media:
            given = [medium.tensors[name].to(self._model.device) for name in named]
            found += composed.split(tower(*given, return_dict=True).pooler_output, [medium])
        return found
