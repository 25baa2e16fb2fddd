"""A prompt as vLLM's engine takes it: expanded ids and each medium's tensors, processed once.

vLLM's own processor never runs: the family has made the tensors and the placeholders already, so
both engines see the same pixels, and a medium that many prompts share is processed a single time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature
from vllm.inputs import EngineInput, mm_input, tokens_input
from vllm.lora.request import LoRARequest
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalKwargsItem, MultiModalKwargsItems, PlaceholderRange

from mmrl.engines.vllm.media import PlacedMedium
from mmrl.errors import UserError

ADAPTER_ID = 1


def adapter_request() -> LoRARequest:
    """Ask for the run's adapter, of which there is one, in memory; the path is never read."""
    return LoRARequest("mmrl", ADAPTER_ID, "in memory")


class InputMaker:
    """Makes engine inputs for one model; `model_config` is vLLM's own."""

    def __init__(self, model_config: Any) -> None:
        takes_media = model_config.is_multimodal_model
        self._processor = (
            MULTIMODAL_REGISTRY.create_processor(model_config) if takes_media else None
        )

    def make(self, ids: Sequence[int], media: Sequence[PlacedMedium], sample: str) -> EngineInput:
        """The engine input of expanded ids; raises UserError with the sample's id if it cannot."""
        if not media:
            return tokens_input(list(ids))
        items: dict[str, list[MultiModalKwargsItem]] = {}
        hashes: dict[str, list[str]] = {}
        ranges: dict[str, list[PlaceholderRange]] = {}
        for medium in media:
            items.setdefault(medium.modality, []).append(self._item(medium, sample))
            hashes.setdefault(medium.modality, []).append(medium.hash)
            ranges.setdefault(medium.modality, []).append(_range(medium))
        return mm_input(list(ids), MultiModalKwargsItems(items), hashes, ranges)

    def _item(self, medium: PlacedMedium, sample: str) -> MultiModalKwargsItem:
        """A medium's tensors, each with vLLM's own rule for batching it."""
        features = BatchFeature(dict(medium.tensors))
        fields = self._processor._get_mm_fields_config(features, {}) if self._processor else {}
        made = MultiModalKwargsItems.from_hf_inputs(features, fields)
        if set(made) != {medium.modality} or len(made[medium.modality]) != 1:
            raise UserError(
                f"sample '{sample}': vLLM does not take this {medium.modality} of this model "
                "family; use rollout.engine=hf (see `mmrl families`)"
            )
        return made[medium.modality][0]


def _range(medium: PlacedMedium) -> PlaceholderRange:
    if medium.embedded is None:
        return PlaceholderRange(medium.first, medium.length)
    return PlaceholderRange(medium.first, medium.length, torch.from_numpy(medium.embedded))
