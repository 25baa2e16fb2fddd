"""Sample -> Prompt: each medium is decoded and processed once, then shared by reference."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np

from mmrl import plugins
from mmrl.policy.family import Family
from mmrl.types import EncodedMedium, Media, MediaRef, Prompt, Sample

MAX_KEPT_MEDIA = 512


class Encoder:
    """Encodes samples; keeps the most recently used media so that variants and epochs share."""

    def __init__(self, family: Family, max_kept: int = MAX_KEPT_MEDIA) -> None:
        self._family = family
        self._max_kept = max_kept
        self._kept: OrderedDict[Hashable, EncodedMedium] = OrderedDict()

    def prompt(self, sample: Sample) -> Prompt:
        """Both views of a sample; raises MediaError with the reason if a medium is unusable.

        Placeholders equal features for every medium, or the sample never reaches a forward pass.
        """
        media = [self._encoded(part) for part in sample.parts if isinstance(part, MediaRef)]
        prompt = self._family.encode(sample, media)
        placeholders = int(np.isin(prompt.ids, self._family.placeholder_ids).sum())
        features = sum(medium.num_tokens for medium in media)
        assert placeholders == features, (
            f"sample {sample.id}: {placeholders} placeholders for {features} feature rows"
        )
        return prompt

    def decoded(self, prompt: Prompt, wanted: Callable[[EncodedMedium], bool]) -> dict[str, Media]:
        """The wanted media of a prompt by hash, decoded again: arrays are not kept."""
        refs = [part for part in prompt.sample.parts if isinstance(part, MediaRef)]
        return {
            encoded.hash: decode(ref)
            for encoded, ref in zip(prompt.media, refs, strict=True)
            if wanted(encoded)
        }

    def _encoded(self, ref: MediaRef) -> EncodedMedium:
        key = (ref.kind, ref.source, repr(sorted(ref.options.items())))
        if key not in self._kept:
            self._kept[key] = self._family.encode_medium(decode(ref))
            if len(self._kept) > self._max_kept:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def decode(ref: MediaRef) -> Media:
    """Decode a medium with the modality named by its kind."""
    module = plugins.load("modality", ref.kind)
    media: Media = module.decode(ref)
    return media
