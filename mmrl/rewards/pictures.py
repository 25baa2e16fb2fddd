"""Pictures as reward functions get them: PIL images, in columns and in messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mmrl.frame import PICTURE_FORMATS


def opened(source: Any) -> Any:
    """The picture of a path or of encoded bytes, upright; a list of each; else what was given.

    Pixels are read when they are looked at. A URL is not fetched, a video or a sound is its path.
    """
    if isinstance(source, list | tuple):
        return [opened(item) for item in source]
    if not isinstance(source, bytes | Path):
        return source
    try:
        file = BytesIO(source) if isinstance(source, bytes) else source
        image = Image.open(file, formats=PICTURE_FORMATS)
    except (UnidentifiedImageError, FileNotFoundError):
        return source if isinstance(source, bytes) else str(source)
    turned = image.getexif().get(ExifTags.Base.Orientation) is not None
    return ImageOps.exif_transpose(image) if turned else image


def messages_with_pictures(
    messages: Sequence[Mapping[str, Any]], pictures: Sequence[Any]
) -> list[dict[str, Any]]:
    """Messages with a picture in the place of each, as TRL hands them out.

    Where they have no places, the pictures stand in front of the first user's text; texts become
    parts of a content then. Messages with another number of places are returned as they are.
    """
    places = sum(_is_place(part) for message in messages for part in _parts(message))
    if places not in (0, len(pictures)):
        return [dict(message) for message in messages]
    left = list(pictures)
    shown = []
    for message in messages:
        first = not places and left and message["role"] == "user"
        parts = [{"type": "image"} for _ in left] if first else []
        parts += _parts(message)
        filled = [
            {**part, "image": left.pop(0)} if _is_place(part) and left else part for part in parts
        ]
        shown.append({**message, "content": filled})
    return shown


def _parts(message: Mapping[str, Any]) -> list[Any]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())


def _is_place(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "image"
