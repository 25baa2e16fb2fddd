"""Screenshots: images whose answers point back at a screen."""

from __future__ import annotations

import dataclasses

from pydantic import Field

from mmrl.modalities import image
from mmrl.modalities import options as opts
from mmrl.types import Media, MediaRef


class Options(image.Options):
    pixel_ratio: float = Field(
        1.0, gt=0, description="pixels of the screenshot to one point of the screen"
    )


def decode(ref: MediaRef) -> Media:
    """Read a screenshot as an image is read; its Frame leads back to points of the screen.

    Raises MediaError as images do.
    """
    options = opts.of(ref, Options)
    media = image.read(ref, options)
    frame = dataclasses.replace(media.frame, pixel_ratio=options.pixel_ratio)
    return dataclasses.replace(media, frame=frame)
