"""Families whose tower takes any resolution as a grid of patches: Qwen-VL and what followed it.

Positions have three axes (time, height, width) and come from the library's own function.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmrl.policy.families import composed
from mmrl.policy.families.composed import Composed, Encoded, Intake
from mmrl.policy.family import Declaration, Limits
from mmrl.types import EncodedMedium, Ints, Media


def build(
    model: Any,
    processor: Any,
    limits: Limits,
    declaration: Declaration,
    *,
    markers: Sequence[str] = ("<|vision_start|>", "<|vision_end|>"),
    fix_positions: bool = False,
) -> Composed:
    """Bind a family with an image and a video intake; `markers` are banned with the placeholders.

    `fix_positions` makes text go on after the end of a video, see `continue_after_media`.
    """
    placeholder_ids = composed.token_ids(processor, processor.image_token, processor.video_token)
    tower = GridTower(model.model)

    def positions(ids: Ints, media: Encoded) -> npt.NDArray[Any]:
        kinds = np.array(processor.create_mm_token_type_ids([ids.tolist()])[0])
        found = rope_positions(model.model, ids, kinds, media)
        return continue_after_media(found, kinds) if fix_positions else found

    return Composed(
        model,
        processor,
        limits,
        declaration,
        intakes=intakes(processor, limits, tower),
        placeholder_ids=placeholder_ids,
        banned_ids=(*placeholder_ids, *composed.token_ids(processor, *markers)),
        positions=positions,
        more_inputs=tower.deepstack,
    )


def intakes(processor: Any, limits: Limits, tower: GridTower) -> dict[Any, Intake]:
    """Intakes of images, screenshots and videos within the run's budgets."""
    image_budget = budget(processor.image_processor.size, limits.min_pixels, limits.max_pixels)
    video_budget = budget(
        processor.video_processor.size, limits.min_video_pixels, limits.max_video_pixels
    )

    def image(media: Media) -> dict[str, Any]:
        return {**composed.images(media), "images_kwargs": {"size": image_budget}}

    video_options: dict[str, Any] = {"size": video_budget}
    if hasattr(processor.video_processor, "cap_pixels_per_frame"):
        video_options["cap_pixels_per_frame"] = False  # frames were sized when they were decoded

    def video(media: Media) -> dict[str, Any]:
        return composed.videos(twice_if_one(media), video_options)

    def size(patch: int, key: str) -> Any:
        return lambda tensors: tuple(int(side) * patch for side in tensors[key][0, [2, 1]])

    picture = Intake(
        processor.image_token,
        image,
        tower.images,
        size=size(processor.image_processor.patch_size, "image_grid_thw"),
    )
    clip = Intake(
        processor.video_token,
        video,
        tower.videos,
        size=size(processor.video_processor.patch_size, "video_grid_thw"),
    )
    return {"image": picture, "screenshot": picture, "video": clip}


def twice_if_one(media: Media) -> Media:
    """A clip's only frame twice: a step of the tower takes two, and some processors refuse one."""
    if len(media.array) > 1:
        return media
    frame = replace(media.frame, indices=media.frame.indices * 2, seconds=media.frame.seconds * 2)
    return replace(media, array=np.concatenate([media.array] * 2), frame=frame)


def budget(size: Mapping[str, int], low: int | None, high: int | None) -> dict[str, int]:
    """The processor's own pixel budget with the run's limits put in."""
    found = {key: size[key] for key in ("shortest_edge", "longest_edge")}
    if low:
        found["shortest_edge"] = low
    if high:
        found["longest_edge"] = high
    return found


class GridTower:
    """The vision tower: one call for all images, one for all videos.

    A deepstack tower gives features for several layers; they are kept side by side, so that a
    medium has one tensor [tokens, (1 + levels) * hidden].
    """

    def __init__(self, owner: Any) -> None:
        self._owner = owner

    @property
    def _device(self) -> torch.device:
        found: torch.device = next(self._owner.visual.parameters()).device
        return found

    def images(self, media: Encoded) -> list[Tensor]:
        pixels = composed.stacked(media, "pixel_values", self._device)
        grids = composed.stacked(media, "image_grid_thw", self._device)
        return self._joined(self._owner.get_image_features(pixels, grids, return_dict=True), media)

    def videos(self, media: Encoded) -> list[Tensor]:
        pixels = composed.stacked(media, "pixel_values_videos", self._device)
        grids = composed.stacked(media, "video_grid_thw", self._device)
        return self._joined(self._owner.get_video_features(pixels, grids, return_dict=True), media)

    def _joined(self, out: Any, media: Encoded) -> list[Tensor]:
        levels = [out.pooler_output, *(getattr(out, "deepstack_features", None) or ())]
        flat = torch.cat([torch.cat(list(level)) for level in levels], dim=-1)
        return composed.split(flat, media)

    def deepstack(self, media: Encoded, features: Sequence[Tensor]) -> dict[str, Any]:
        """Features for the deeper layers, the way the model takes precomputed tower outputs."""
        width = features[0].shape[-1]
        # From the configuration: reading a sharded weight would gather it, on this process alone.
        hidden = self._owner.config.get_text_config().hidden_size
        if width == hidden:
            return {}
        outputs: dict[str, Any] = {}
        for key, kinds in (("image", ("image", "screenshot")), ("video", ("video",))):
            rows = [f for m, f in zip(media, features, strict=True) if m.kind in kinds]
            if rows:
                first, *deeper = torch.cat(rows).split(hidden, dim=-1)
                outputs[key] = BaseModelOutputWithPooling(pooler_output=(first,))
                outputs[key].deepstack_features = [(level,) for level in deeper]
        return {"mm_encoder_outputs": outputs}


def rope_positions(owner: Any, ids: Ints, kinds: Ints, media: Encoded) -> npt.NDArray[Any]:
    """Positions [3, L] of a prompt by the model's own function."""
    known = {
        "mm_token_type_ids": torch.from_numpy(kinds)[None].int(),
        "image_grid_thw": gathered(media, "image_grid_thw"),
        "video_grid_thw": gathered(media, "video_grid_thw"),
        "second_per_grid_ts": seconds_of_grids(media, "second_per_grid_ts"),
    }
    taken = inspect.signature(owner.get_rope_index).parameters
    arguments = {key: value for key, value in known.items() if key in taken}
    positions, _ = owner.get_rope_index(torch.from_numpy(ids)[None], **arguments)
    found: npt.NDArray[Any] = positions[:, 0].numpy()
    return found


def gathered(media: Encoded, key: str) -> Tensor | None:
    """A tensor [n, ...] of those media that have it, in order; None where none has."""
    found = [medium.tensors[key] for medium in media if key in medium.tensors]
    return torch.cat(found) if found else None


def seconds_of_grids(media: Encoded, key: str) -> list[Tensor] | None:
    """For each clip the seconds from one grid to the next, or, of a varying rate, of each grid.

    The library multiplies grids' numbers [t] by them: a tensor [t] puts grid g where its first
    frame is shown. Clips whose sound is woven in by the processor, evenly, keep to that.
    """
    clips = [medium for medium in media if key in medium.tensors]
    return [_seconds_of(clip, key) for clip in clips] or None


def _seconds_of(clip: EncodedMedium, key: str) -> Tensor:
    even = clip.tensors[key].flatten()[0]
    if composed.is_even(clip.frame) or "feature_attention_mask" in clip.tensors:
        return even
    grids = int(clip.tensors["video_grid_thw"][0, 0])
    each = -(-len(clip.frame.seconds) // grids)
    shown = torch.tensor(clip.frame.seconds[::each], dtype=torch.float64)
    numbers = torch.arange(grids).clamp(min=1)
    # Products are cut to whole positions: the last digit must not cost one.
    return ((shown - shown[0]) / numbers * (1 + 2e-7)).to(even.dtype)


def continue_after_media(positions: npt.NDArray[Any], kinds: Ints) -> npt.NDArray[Any]:
    """Let the text after a medium start at the highest position so far plus one.

    positions [3, L], kinds [L]: 0 is text. The library goes on after max(height, width) and
    forgets how long a video lasts, against the models' first code, vLLM, and its own generate.
    """
    fixed = positions.copy()
    for i in range(1, fixed.shape[1]):
        if kinds[i] == 0 and kinds[i - 1] != 0:
            fixed[:, i:] += fixed[:, :i].max() + 1 - fixed[0, i]
    return fixed
