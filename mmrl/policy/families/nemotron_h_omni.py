"""Nemotron-H Omni: Mamba2 between attention and experts, frames in pairs with their seconds.

Pictures and clips have the same placeholder: the library's own forward takes one kind in a prompt.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.video_utils import VideoMetadata

from mmrl.policy.families import composed
from mmrl.policy.families.composed import TICKS, Composed, Encoded, Intake
from mmrl.policy.family import Declaration, Family, Limits
from mmrl.types import Media

DECLARATION = Declaration(
    model_types=("nemotron_h_omni",),
    takes=("image", "screenshot", "video"),
    space="unit",
    towers=("vision_model", "vision_final_layernorm", "multi_modal_projector"),
    projectors=("multi_modal_projector",),
    language="language_model.model.layers",
    lora_targets=(
        *("q_proj", "k_proj", "v_proj", "o_proj", "in_proj", "out_proj", "up_proj", "down_proj"),
    ),
    lora_parameters=("mixer.experts.up_proj", "mixer.experts.down_proj"),
    apart=("video",),
    notes="sounds are not taken; experts take adapters by lora_parameters",
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    pictures = composed.token_ids(processor, processor.image_token, processor.video_token)
    markers = (processor.image_start_token, processor.image_end_token)
    sounds = (processor.audio_token, processor.audio_start_token, processor.audio_end_token)
    budget = _budget(processor.image_processor, limits)

    def image(media: Media) -> dict[str, Any]:
        return {**composed.images(media), "images_kwargs": budget}

    picture = Intake(processor.image_token, image, Tower(model).images, size=_size(processor))
    clip = Intake(processor.video_token, videos, Tower(model).videos)
    return Composed(
        model,
        processor,
        limits,
        DECLARATION,
        intakes={"image": picture, "screenshot": picture, "video": clip},
        placeholder_ids=pictures,
        banned_ids=(*pictures, *composed.token_ids(processor, *markers, *sounds)),
    )


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
    """The vision tower: one call for all pictures, one for each clip."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def images(self, media: Encoded) -> list[Tensor]:
        pixels = composed.stacked(media, "pixel_values", self._model.device)
        grids = composed.stacked(media, "image_grid_hw", self._model.device)
        return list(self._model.get_image_features(pixels, grids, return_dict=True).pooler_output)

    def videos(self, media: Encoded) -> list[Tensor]:
        return [row for medium in media for row in composed.split(self._of(medium), [medium])]

    def _of(self, medium: Any) -> Tensor:
        frames = medium.tensors["pixel_values_videos"].to(self._model.device)
        found: Tensor = self._model.get_video_features(frames, return_dict=True).pooler_output
        return found
