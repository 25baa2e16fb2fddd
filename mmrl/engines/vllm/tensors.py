"""A medium's tensors as vLLM's own classes ask for them, where the library's processor differs.

vLLM's processors add what tells the media of a batch apart (how many tiles or frames are whose),
take away an axis that counts samples, and rename some tensors. Here that is done to what the family
has made; a family that is not listed has tensors that vLLM takes as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmrl.types import EncodedMedium

MODALITIES = {"image": "image", "screenshot": "image", "video": "video", "audio": "audio"}


@dataclass(frozen=True)
class Part:
    """What vLLM counts as one medium, with its tensors.

    A clip with its sound is two of them, whose features take turns.
    """

    modality: str
    tensors: Mapping[str, Tensor]


def modalities(medium: EncodedMedium, model_type: str, placeholders: int) -> list[str]:
    """What the `parts` of a medium with so many kinds of placeholders are, without its tensors."""
    if model_type in TILED:
        return ["image"]
    name = MODALITIES[medium.kind]
    return [name, "audio"] if placeholders > 1 else [name]


def parts(medium: EncodedMedium, model_type: str, placeholder: int) -> list[Part]:
    """What vLLM's class for `model_type` takes a medium as; `placeholder` is its first one's id."""
    if model_type in TILED:
        # Pictures and the frames of a clip go through the same tower: to vLLM, all are pictures.
        return [Part("image", _tiles(medium.tensors, placeholder))]
    if model_type in LISTED:
        return LISTED[model_type](medium)
    return [Part(MODALITIES[medium.kind], medium.tensors)]


def _tiles(tensors: Mapping[str, Tensor], placeholder: int) -> dict[str, Tensor]:
    """All tiles or frames, one after the other, and how many they are."""
    pixels = tensors["pixel_values"]
    by_sample = "pixel_attention_mask" in tensors and pixels.dim() == 5
    found = {name: t.flatten(0, 1) if by_sample else t for name, t in tensors.items()}
    count = torch.tensor([len(found["pixel_values"])])
    return {
        **found,
        "num_patches": count,
        "image_num_patches": count,
        "image_token_id": torch.tensor(placeholder),
    }


def _gemma4(medium: EncodedMedium) -> list[Part]:
    """Frames of a clip one after the other; a sound without its padding."""
    given = medium.tensors
    if medium.kind == "audio":
        (heard,) = given["input_features_mask"].bool()
        (spectrum,) = given["input_features"]
        made = {"input_features_padded": spectrum[heard], "input_features_mask": heard[heard]}
        return [Part("audio", {name: tensor[None] for name, tensor in made.items()})]
    if medium.kind == "video":
        pixels = given["pixel_values_videos"].flatten(0, -3)
        frames = {
            "pixel_values_videos": pixels,
            "pixel_position_ids_videos": given["video_position_ids"].flatten(0, -3),
            "video_frame_counts": torch.tensor([len(pixels)]),
        }
        return [Part("video", frames)]
    places = given["image_position_ids"]
    return [Part("image", {"pixel_values": given["pixel_values"], "pixel_position_ids": places})]


def _omni(medium: EncodedMedium) -> list[Part]:
    """Spectrograms of all sounds without padding, one after the other; a clip's sound by itself."""
    given = dict(medium.tensors)
    sound = {}
    if "feature_attention_mask" in given:
        mask = given.pop("feature_attention_mask").bool()
        spectra = given.pop("input_features").permute(0, 2, 1)[mask]
        sound = {
            "input_audio_features": spectra.T,
            "feature_attention_mask": mask.int(),
            "audio_feature_lengths": mask.sum(-1),
        }
    if medium.kind == "audio":
        return [Part("audio", sound)]
    if medium.kind != "video":
        return [Part("image", given)]
    given["second_per_grid_ts"] = given.pop("video_second_per_grid").flatten()
    given["use_audio_in_video"] = torch.tensor(bool(sound))
    frames = Part("video", given)
    return [frames, Part("audio", sound)] if sound else [frames]


TILED = ("gemma3", "internvl", "lfm2_vl", "smolvlm")
LISTED: Mapping[str, Callable[[EncodedMedium], list[Part]]] = {
    "gemma4": _gemma4,
    "qwen2_5_omni_thinker": _omni,
    "qwen3_omni_moe_thinker": _omni,
}
