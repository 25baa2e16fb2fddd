"""Columns that hold media, by their names and by what is in them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from mmrl.corpus.cells import as_value
from mmrl.corpus.media_values import looks_like_media
from mmrl.corpus.placeholders import KINDS, Kind

_WORDS: Mapping[str, Kind] = {
    "image": "image", "img": "image", "picture": "image", "photo": "image", "screenshot": "image",
    "decoded_image": "image", "pil_image": "image", "imgname": "image", "video": "video",
    "clip": "video", "frame": "video", "audio": "audio", "wav": "audio", "sound": "audio",
    "speech": "audio",
}  # fmt: skip
_NAMED = re.compile(
    rf"({'|'.join(_WORDS)})s?(?:_?(?:path|file|filename|url|uri|bytes|data|base64|b64)s?|_?(\d+))?",
    re.IGNORECASE,
)


def kind_of(name: str) -> Kind | None:
    """The kind of medium that a column of this name holds, if its name says so."""
    found = _NAMED.fullmatch(name)
    return _WORDS[found[1].lower()] if found else None


def shows_media(name: str, value: Any) -> bool:
    """Whether a column holds media to show, by its name or by what is in it."""
    return looks_like_media(value) or (kind_of(name) is not None and bool(media_items(name, value)))


def media_items(name: str, value: Any) -> list[Any]:
    """The media of a column: one, or each of a list; a list of pictures can be a video's frames.

    Empty for what cannot be a medium, such as a number.
    """
    value = as_value(value)
    if not isinstance(value, list | tuple):
        return [value] if _could_be(value) else []
    items = [as_value(item) for item in value if item not in (None, "")]
    if kind_of(name) == "video" and items and not any(isinstance(i, list | tuple) for i in items):
        clips = [isinstance(i, str) and _is_video(i) for i in items]
        plural = name.lower().rstrip("0123456789_").endswith("s") and "frame" not in name.lower()
        pictures = all(isinstance(i, str) and looks_like_media(i) for i in items)
        if not any(clips) and (pictures or not plural):
            return [items]
    if all(map(_could_be, items)):
        return items
    # Samples of a sound, pixels: nobody would miss them if the column had another name.
    return [value] if name.lower().rstrip("s") in KINDS else []


def number_of(name: str) -> int | None:
    """The number at the end of a media column's name, if it has one."""
    found = _NAMED.fullmatch(name)
    return int(found[2]) if found and found[2] else None


def _could_be(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(value.values())
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_could_be, value))
    return isinstance(value, str | bytes | bytearray | memoryview | os.PathLike) and bool(value)


def _is_video(value: str) -> bool:
    return not re.search(r"\.(png|jpe?g|webp|bmp|gif|tiff?)$", value, re.IGNORECASE) and (
        looks_like_media(value)
    )
