"""A prompt as vLLM's engine takes it: expanded ids and each medium's tensors, processed once.

vLLM's own processor never runs: the family has made the tensors and the placeholders already, so
both engines see the same pixels, and a medium that many prompts share is processed a single time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import BatchFeature
from vllm.inputs import EngineInput, mm_input, tokens_input
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalKwargsItem, MultiModalKwargsItems, PlaceholderRange

from mmrl.errors import UserError
from mmrl.policy.family import Family
from mmrl.types import EncodedMedium, Ints, Prompt

MODALITIES = {"image": "image", "screenshot": "image", "video": "video", "audio": "audio"}


class InputMaker:
    """Makes engine inputs for one model; `model_config` is vLLM's own."""

    def __init__(self, model_config: Any, family: Family) -> None:
        self._family = family
        takes_media = model_config.is_multimodal_model
        self._processor = (
            MULTIMODAL_REGISTRY.create_processor(model_config) if takes_media else None
        )

    def make(self, prompt: Prompt) -> EngineInput:
        """The engine input of a prompt; raises UserError with the sample's id if vLLM cannot."""
        ids = prompt.ids.tolist()
        if not prompt.media:
            return tokens_input(ids)
        items: dict[str, list[MultiModalKwargsItem]] = {}
        hashes: dict[str, list[str]] = {}
        ranges: dict[str, list[PlaceholderRange]] = {}
        for medium, places in zip(prompt.placed, self._places(prompt), strict=True):
            modality = MODALITIES[medium.kind]
            items.setdefault(modality, []).append(self._item(medium, modality, prompt.sample.id))
            hashes.setdefault(modality, []).append(f"{modality}-{medium.hash}")
            ranges.setdefault(modality, []).append(self._range(prompt.ids, places))
        return mm_input(ids, MultiModalKwargsItems(items), hashes, ranges)

    def _places(self, prompt: Prompt) -> list[Ints]:
        """Indices of each medium's placeholders, in the order of the placeholders."""
        (found,) = np.isin(prompt.ids, self._family.placeholder_ids).nonzero()
        counts = [medium.num_tokens for medium in prompt.placed]
        if len(found) != sum(counts):
            raise UserError(
                f"sample '{prompt.sample.id}' has {len(found)} media placeholders for "
                f"{sum(counts)} feature rows: vLLM cannot take it"
            )
        return np.split(found, np.cumsum(counts)[:-1])

    def _item(self, medium: EncodedMedium, modality: str, sample: str) -> MultiModalKwargsItem:
        """A medium's tensors, each with vLLM's own rule for batching it."""
        features = BatchFeature(dict(medium.tensors))
        fields = self._processor._get_mm_fields_config(features, {}) if self._processor else {}
        made = MultiModalKwargsItems.from_hf_inputs(features, fields)
        if set(made) != {modality} or len(made[modality]) != 1:
            raise UserError(
                f"sample '{sample}': vLLM does not take this {medium.kind} of this model family; "
                "use rollout.engine=hf (see `mmrl families`)"
            )
        return made[modality][0]

    def _range(self, ids: Ints, places: Ints) -> PlaceholderRange:
        """Where a medium stands; text between its placeholders gets no features.

        A medium that is interrupted by text (a video's dated frames) starts and ends with a marker:
        vLLM looks for those to number the positions.
        """
        first, last = int(places[0]), int(places[-1])
        if last - first + 1 == len(places):
            return PlaceholderRange(first, len(places))
        first -= int(ids[first - 1]) in self._family.banned_ids
        last += int(ids[last + 1]) in self._family.banned_ids
        embedded = torch.from_numpy(np.isin(np.arange(first, last + 1), places))
        return PlaceholderRange(first, last - first + 1, embedded)
