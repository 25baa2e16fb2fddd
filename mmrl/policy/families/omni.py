"""The thinkers of the Omni models: pictures, clips, sound, and clips with their own sound.

The sound of a clip is interleaved with its frames on one timeline by the processor, and both get
positions from the library's own function.

From transformers 5.21 on, a thinker's towers and language layers are parts of its `model`, as in
other models; before that, only the language layers were. From 5.23 on, its processor is told which
sounds are a clip's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from packaging.version import Version
from torch import Tensor

from mmrl.errors import MediaError
from mmrl.policy.families import composed, grid
from mmrl.policy.families.composed import Composed, Encoded, Intake
from mmrl.policy.family import Declaration, Limits
from mmrl.types import EncodedMedium, Ints, Media

NESTED = Version(transformers.__version__) >= Version("5.21")
ROOT = "model." if NESTED else ""
"""Where a thinker's towers are."""
LANGUAGE = "model.language_model.layers" if NESTED else "model.layers"


def build(
    model: Any,
    processor: Any,
    limits: Limits,
    declaration: Declaration,
    *,
    max_seconds: float = math.inf,
) -> Composed:
    """Bind a thinker; the talker is never trained. Its processor cuts sound at `max_seconds`."""
    visual = composed.token_ids(processor, processor.image_token, processor.video_token)
    sound = composed.token_ids(processor, processor.audio_token)
    markers = composed.token_ids(
        processor,
        processor.vision_bos_token,
        processor.vision_eos_token,
        processor.audio_bos_token,
        processor.audio_eos_token,
    )
    owner = model.model if NESTED else model
    tower = OmniTower(owner, processor.video_token, processor.audio_token)
    return Composed(
        model,
        processor,
        limits,
        declaration,
        intakes=_intakes(processor, limits, tower, max_seconds),
        placeholder_ids=(*visual, *sound),
        banned_ids=(*visual, *sound, *markers),
        positions=lambda ids, media: positions(owner, ids, media),
        more_inputs=tower.deepstack,
    )


def _intakes(
    processor: Any, limits: Limits, tower: OmniTower, max_seconds: float
) -> dict[Any, Intake]:
    around = (processor.vision_bos_token, processor.vision_eos_token)
    rate = processor.feature_extractor.sampling_rate
    seen = grid.intakes(processor, limits, tower)
    # The processor puts its own default for videos above what its video processor was saved with.
    budget = grid.budget(
        processor.video_processor.size, limits.min_video_pixels, limits.max_video_pixels
    )

    def clip(media: Media) -> dict[str, Any]:
        _, shown, total = composed.clocked(media.frame)
        sampled = len(media.array) / total * shown
        arguments = composed.videos(media, {"size": budget, "fps": sampled})
        if media.track is None:
            return arguments
        return _with_sound(processor, arguments, composed.audio(media, rate, max_seconds))

    return {
        **seen,
        "audio": Intake(
            processor.audio_token,
            lambda media: composed.audio(media, rate, max_seconds),
            tower.sounds,
            around=(processor.audio_bos_token, processor.audio_eos_token),
        ),
        "video": Intake(
            processor.video_token,
            clip,
            tower.clips,
            around=around,
            size=seen["video"].size,
        ),
    }


def _with_sound(processor: Any, clip: dict[str, Any], sound: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for a clip together with its own sound, the way this processor takes them."""
    if hasattr(processor, "load_audio_from_video"):
        told = {"load_audio_from_video": True, "audio_from_video_indices": [0]}
        return {**clip, **sound, **told}
    settings = {**clip["videos_kwargs"], "use_audio_in_video": True}
    return {**clip, **sound, "videos_kwargs": settings}


class OmniTower(grid.GridTower):
    """Vision and audio towers; a clip with sound gets the rows of both in its tokens' order."""

    def __init__(self, model: Any, video_token: str, audio_token: str) -> None:
        super().__init__(model)
        self._tokens = re.compile(f"({re.escape(video_token)})|{re.escape(audio_token)}")

    def sounds(self, media: Encoded) -> list[Tensor]:
        """One call for all sounds, padded to one length: [tokens, width] a sound."""
        longest = max(m.tensors["input_features"].shape[-1] for m in media)

        def padded(key: str) -> Tensor:
            pad = torch.nn.functional.pad
            found = [m.tensors[key] for m in media]
            return torch.cat([pad(x, (0, longest - x.shape[-1])) for x in found]).to(self._device)

        heard = self._owner.get_audio_features(
            padded("input_features"), padded("feature_attention_mask"), return_dict=True
        )
        return composed.split(heard.last_hidden_state, media)

    def clips(self, media: Encoded) -> list[Tensor]:
        """One call of the vision tower for all clips, and one of the other for all their sound.

        [tokens, width] a clip, its frames' rows and its sound's in the order of the placeholders.
        """
        shown = [self._is_shown(m) for m in media]
        with_sound = [i for i, places in enumerate(shown) if not places.all()]
        rows = self.videos(
            [replace(m, num_tokens=int(s.sum())) for m, s in zip(media, shown, strict=True)]
        )
        if with_sound:
            tracks = [replace(media[i], num_tokens=int((~shown[i]).sum())) for i in with_sound]
            for i, sound in zip(with_sound, self.sounds(tracks), strict=True):
                rows[i] = interleave(rows[i], sound, shown[i].to(sound.device))
        return rows

    def deepstack(self, media: Encoded, features: Sequence[Tensor]) -> dict[str, Any]:
        """The deeper layers' features [tokens, width] of what is shown; sound has none."""
        seen = [
            f[self._is_shown(m).to(f.device)] if m.kind == "video" else f
            for m, f in zip(media, features, strict=True)
        ]
        return super().deepstack(media, seen)

    def _is_shown(self, medium: EncodedMedium) -> Tensor:
        """Which of a clip's tokens are its frames' [tokens]; the others are its sound's."""
        tokens = self._tokens.finditer(medium.expansion)
        return torch.tensor([found[1] is not None for found in tokens])


def interleave(frames: Tensor, sound: Tensor, shown: Tensor) -> Tensor:
    """Rows [N, width] of frames where `shown` [N], of sound elsewhere, made as wide by zeros."""
    wide = torch.nn.functional.pad(sound, (0, frames.shape[-1] - sound.shape[-1]))
    both = torch.cat([frames, wide])
    order = torch.where(shown, shown.cumsum(0) - 1, len(frames) + (~shown).cumsum(0) - 1)
    return both[order]


def positions(model: Any, ids: Ints, media: Encoded) -> npt.NDArray[Any]:
    """Positions [3, L] of a prompt; clips with and without sound do not mix in one."""
    clips = {"feature_attention_mask" in m.tensors for m in media if m.kind == "video"}
    if len(clips) > 1:
        raise MediaError("clips with and without their sound do not mix in one prompt")
    heard = [m.tensors["feature_attention_mask"] for m in media if _has_sound(m)]
    tokens = torch.from_numpy(ids)[None]
    found, _ = model.get_rope_index(
        tokens,
        grid.gathered(media, "image_grid_thw"),
        grid.gathered(media, "video_grid_thw"),
        torch.ones_like(tokens),
        use_audio_in_video=True in clips,
        audio_seqlens=torch.cat([mask.sum(-1) for mask in heard]) if heard else None,
        second_per_grids=grid.seconds_of_grids(media, "video_second_per_grid"),
    )
    positions: npt.NDArray[Any] = found[:, 0].numpy()
    whole = positions.astype(np.int64)
    # Fractions stay; whole numbers, whatever their type, are equal to any other prompt's.
    return whole if np.array_equal(whole, positions) else positions


def _has_sound(medium: EncodedMedium) -> bool:
    return "feature_attention_mask" in medium.tensors
