"""A prompt over the token limit: its pictures and clips are seen smaller, or it is not asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mmrl.errors import PromptTooLong
from mmrl.types import EncodedMedium, MediaRef, Sample

PIXEL_BUDGETS: Mapping[str, str] = {
    "image": "max_pixels",
    "screenshot": "max_pixels",
    "video": "max_frame_pixels",
}
MARGIN = 0.9
"""Sizes are rounded to whole patches, often upwards."""


def shrunk(sample: Sample, media: Sequence[EncodedMedium], error: PromptTooLong) -> Sample:
    """The sample with the pixel budgets of its media cut to what the limit leaves for them.

    `media` are its encoded media in the order of its parts. All shrink by one factor; text and
    sounds stay whole. Raises `error` where they leave no room, or nothing can shrink.
    """
    flexible = sum(m.num_tokens for m in media if m.kind in PIXEL_BUDGETS)
    room = error.limit - (error.tokens - flexible)
    if not flexible or room <= 0:
        raise error
    factor = MARGIN * room / flexible
    seen = iter(media)
    return replace(
        sample,
        parts=tuple(
            _smaller(part, next(seen), factor) if isinstance(part, MediaRef) else part
            for part in sample.parts
        ),
    )


def within(ref: MediaRef, pixels: int) -> MediaRef:
    """The medium with at most so many pixels, a clip with as many a frame; sound as it is."""
    option = PIXEL_BUDGETS.get(ref.kind)
    if option is None:
        return ref
    most = min(ref.options.get(option) or pixels, pixels)
    return replace(ref, options={**ref.options, option: most})


def _smaller(ref: MediaRef, medium: EncodedMedium, factor: float) -> MediaRef:
    width, height = medium.frame.processed_size
    return within(ref, max(int(width * height * factor), 1))
