"""Qwen2.5-VL: images as patch grids, three-axis positions, boxes in pixels of the resized image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmrl.errors import MediaError
from mmrl.policy.families import chat
from mmrl.policy.family import Family, Limits
from mmrl.types import EncodedMedium, Ints, Media, Prompt, Sample, Space

MODEL_TYPES = ("qwen2_5_vl",)


class Qwen25VL:
    """The family bound to one model and its processor."""

    space: Space = "processed_pixels"

    def __init__(self, model: Any, processor: Any, limits: Limits) -> None:
        self._model, self._processor, self._limits = model, processor, limits
        self._tokenizer = processor.tokenizer
        config = model.config
        self._image_id: int = config.image_token_id
        self.placeholder_ids: tuple[int, ...] = (config.image_token_id, config.video_token_id)
        markers = (config.vision_start_token_id, config.vision_end_token_id)
        self.banned_ids: tuple[int, ...] = (*self.placeholder_ids, *markers)
        self.end_ids = _end_ids(model, self._tokenizer)
        self._patch: int = config.vision_config.patch_size
        self._merge: int = config.vision_config.spatial_merge_size

    def encode_medium(self, media: Media) -> EncodedMedium:
        """Resize and patch one image; `tensors` are pixel_values [patches, D] and its grid [3]."""
        if media.kind not in ("image", "screenshot"):
            raise MediaError(f"this model family does not take {media.kind}")
        try:
            out = self._processor.image_processor(
                images=[media.array], return_tensors="pt", **self._pixel_budget()
            )
        except ValueError as error:  # smart_resize refuses extreme aspect ratios
            raise MediaError(str(error)) from None
        grid = out["image_grid_thw"][0]
        height, width = (int(side) * self._patch for side in grid[1:])
        return EncodedMedium(
            kind=media.kind,
            hash=media.hash,
            tensors={"pixel_values": out["pixel_values"], "grid": grid},
            num_tokens=int(grid.prod()) // self._merge**2,
            frame=dataclasses.replace(media.frame, processed_size=(width, height)),
        )

    def encode(self, sample: Sample, media: Sequence[EncodedMedium]) -> Prompt:
        """Render the chat template, expand placeholders, compute positions."""
        text = self._processor.apply_chat_template(
            chat.messages(sample, self._tokenizer.all_special_tokens),
            tokenize=False,
            add_generation_prompt=True,
        )
        compact = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = chat.expand(compact, self.placeholder_ids, [m.num_tokens for m in media])
        if len(ids) > self._limits.max_prompt_tokens:
            raise MediaError(
                f"prompt of {len(ids)} tokens is over model.max_prompt_tokens="
                f"{self._limits.max_prompt_tokens}: lower model.max_pixels or raise the limit"
            )
        positions = self._positions(ids, media)
        return Prompt(
            sample=sample,
            compact_ids=tuple(compact),
            ids=ids,
            positions=positions,
            next_position=int(positions.max()) + 1,
            media=tuple(media),
            space=self.space,
        )

    def towers(self) -> Sequence[nn.Module]:
        return (self._model.model.visual,)

    def features(self, media: Sequence[EncodedMedium]) -> list[Tensor]:
        """One call of the vision tower for all given images."""
        device = self._model.device
        pixels = torch.cat([m.tensors["pixel_values"] for m in media]).to(device)
        grids = torch.stack([m.tensors["grid"] for m in media]).to(device)
        out = self._model.model.get_image_features(pixels, grids, return_dict=True)
        return list(out.pooler_output)

    def media_inputs(
        self, media: Sequence[EncodedMedium], features: Sequence[Tensor]
    ) -> Mapping[str, Any]:
        if not media:
            return {}
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features)}}

    def _positions(self, ids: Ints, media: Sequence[EncodedMedium]) -> Ints:
        """Positions [3, L] by the library's own function."""
        tokens = torch.from_numpy(ids)[None]
        grids = torch.stack([m.tensors["grid"] for m in media]) if media else None
        kinds = (tokens == self._image_id).int()
        positions, _ = self._model.model.get_rope_index(
            tokens, mm_token_type_ids=kinds, image_grid_thw=grids
        )
        flat: Ints = positions[:, 0].numpy()
        return flat

    def _pixel_budget(self) -> dict[str, Any]:
        size = dict(self._processor.image_processor.size)
        if self._limits.min_pixels:
            size["shortest_edge"] = self._limits.min_pixels
        if self._limits.max_pixels:
            size["longest_edge"] = self._limits.max_pixels
        return {"size": size}


def _end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    ids = [i for i in (tokenizer.eos_token_id, *listed) if i is not None]
    return tuple(dict.fromkeys(ids))


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    return Qwen25VL(model, processor, limits)
