"""Qwen2-Audio: sound alone, as 30-second spectrograms; one position axis."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask

from mmrl.policy.families import composed
from mmrl.policy.families.composed import Composed, Encoded, Intake
from mmrl.policy.family import Declaration, Family, Limits
from mmrl.types import Media

DECLARATION = Declaration(
    model_types=("qwen2_audio",),
    takes=("audio",),
    space="unit",
    towers=("model.audio_tower", "model.multi_modal_projector"),
    projectors=("model.multi_modal_projector",),
    language="model.language_model.layers",
    loader="Qwen2AudioForConditionalGeneration",
    vllm=("audio",),
    notes="a sound is at most as long as the feature extractor's chunk (30 s)",
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    extractor = processor.feature_extractor
    placeholder_ids = composed.token_ids(processor, processor.audio_token)
    markers = composed.token_ids(processor, processor.audio_bos_token, processor.audio_eos_token)

    def arguments(media: Media) -> dict[str, Any]:
        return composed.audio(media, extractor.sampling_rate, extractor.chunk_length)

    return Composed(
        model,
        processor,
        limits,
        DECLARATION,
        intakes={"audio": Intake(processor.audio_token, arguments, Tower(model.model).sounds)},
        placeholder_ids=placeholder_ids,
        banned_ids=(*placeholder_ids, *markers),
    )


class Tower:
    """The encoder and projector as the model's forward calls them; it has no method for it."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner

    def sounds(self, media: Encoded) -> list[Tensor]:
        tower = self._owner.audio_tower
        device, dtype = tower.conv1.weight.device, tower.conv1.weight.dtype
        spectra = composed.stacked(media, "input_features", device).to(dtype)
        heard = composed.stacked(media, "feature_attention_mask", device).sum(-1)
        frames, tokens = tower._get_feat_extract_output_lengths(heard)
        place = torch.arange((spectra.shape[-1] - 2) // 2 + 1, device=device)
        mask = create_bidirectional_mask(
            config=tower.config,
            inputs_embeds=spectra.new_zeros(len(media), len(place), 1),
            attention_mask=(place < frames[:, None]).long(),
        )
        hidden = tower(spectra, attention_mask=mask).last_hidden_state
        rows = self._owner.multi_modal_projector(hidden)
        return [row[:count] for row, count in zip(rows, tokens.tolist(), strict=True)]
