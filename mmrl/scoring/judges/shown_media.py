"""Media of a prompt as a judge is shown them: pictures as JPEG, sounds as WAV."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from mmrl import plugins
from mmrl.runlog.transcript import preview
from mmrl.types import MediaRef


def pictures_of(ref: MediaRef, max_side: int, frames: int) -> list[Image.Image]:
    """The pictures of a medium: itself, or frames of a video spread over it; none of a sound."""
    if ref.kind == "audio":
        return []
    media = plugins.load("modality", ref.kind).decode(ref)
    arrays = [media.array]
    if ref.kind == "video":
        count = min(frames, len(media.array))
        arrays = [
            media.array[i] for i in np.linspace(0, len(media.array) - 1, count).round().astype(int)
        ]
    found = [Image.fromarray(array) for array in arrays]
    for picture in found:
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return found


def content_of(ref: MediaRef, max_side: int, frames: int) -> list[dict[str, Any]]:
    """The parts of a chat message, in OpenAI's form, that show a medium."""
    if ref.kind == "audio":
        media = plugins.load("modality", ref.kind).decode(ref)
        sound = {"data": base64.b64encode(preview(media)).decode(), "format": "wav"}
        return [{"type": "input_audio", "input_audio": sound}]
    return [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{_jpeg(picture)}"}}
        for picture in pictures_of(ref, max_side, frames)
    ]


def _jpeg(picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=92)
    return base64.b64encode(buffer.getvalue()).decode()
