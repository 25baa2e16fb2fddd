"""qwen-vl-utils' message format -> parts of a sample."""

from __future__ import annotations

import base64
import binascii
import os.path
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from mmrl.types import MediaKind, MediaRef, Part, Text

KINDS: dict[str, MediaKind] = {
    "image": "image",
    "image_url": "image",
    "video": "video",
    "video_url": "video",
    "audio": "audio",
    "audio_url": "audio",
}
OPTIONS: dict[MediaKind, dict[str, str]] = {
    "image": {"min_pixels": "min_pixels", "max_pixels": "max_pixels"},
    "video": {
        "fps": "fps",
        "nframes": "frames",
        "min_frames": "min_frames",
        "max_frames": "max_frames",
        "video_start": "start",
        "video_end": "end",
        "max_pixels": "max_frame_pixels",
        "total_pixels": "max_total_pixels",
    },
    "audio": {"audio_start": "start", "audio_end": "end"},
}
"""Names of settings there and here; `resized_height` and `resized_width` become `size`."""


def read(
    messages: Sequence[Mapping[str, Any]], root: Path
) -> tuple[tuple[Part, ...], str | None, str | None]:
    """Parts of the user's turn, the system prompt, and the assistant's reply (a target).

    Paths, with or without `file://`, are under `root`. A URL stays one, and is fetched only if the
    modality's options allow it. Raises ValueError for what a sample cannot hold: several user
    turns, frames in place of a video, a path outside the root, a setting that has no counterpart.
    """
    turns: dict[str, Any] = {}
    for message in messages:
        role = message.get("role")
        if role not in ("system", "user", "assistant") or role in turns:
            raise ValueError(f"expected one system, user and assistant turn, found {role!r} again")
        turns[role] = message.get("content", "")
    if "user" not in turns:
        raise ValueError("no user turn in the messages")
    content = turns["user"]
    items = [{"type": "text", "text": content}] if isinstance(content, str) else content
    parts = tuple(_part(item, root) for item in items)
    system, target = (_plain(turns[role]) if role in turns else None for role in _SPOKEN)
    return parts, system, target


_SPOKEN = ("system", "assistant")
_NOT_SETTINGS = {"type", "text", "resized_height", "resized_width", *KINDS}


def _part(item: Mapping[str, Any], root: Path) -> Part:
    if "text" in item:
        return Text(str(item["text"]))
    key = next((key for key in KINDS if key in item), None)
    if key is None:
        raise ValueError(f"neither text nor a medium: {dict(item)!r:.80}")
    kind, value = KINDS[key], item[key]
    if isinstance(value, Mapping):
        value = value.get("url")
    return MediaRef(kind, _source(value, kind, root), _settings(item, kind))


def _settings(item: Mapping[str, Any], kind: MediaKind) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in item.keys() - _NOT_SETTINGS:
        if name not in OPTIONS[kind]:
            raise ValueError(f"{kind} setting '{name}' has no counterpart")
        settings[OPTIONS[kind][name]] = item[name]
    if "resized_height" in item and "resized_width" in item:
        settings["size"] = (item["resized_width"], item["resized_height"])
    return settings


def _source(value: Any, kind: MediaKind, root: Path) -> Path | bytes | str:
    if isinstance(value, bytes):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        raise ValueError("frames in place of a video are not supported: give the video's file")
    if not isinstance(value, str) or not value:
        raise ValueError(f"not a {kind} path, URL or bytes: {value!r:.60}")
    if value.startswith(("http://", "https://")):
        return value
    if value.startswith("data:"):
        return _inline(value)
    path = unquote(urlparse(value).path) if value.startswith("file://") else value
    return _inside(path, root)


def _inline(value: str) -> bytes:
    head, found, body = value.partition("base64,")
    if not found or len(head) > 80:
        raise ValueError("a data: URL must be base64")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise ValueError(f"a data: URL that is not base64: {error}") from None


def _inside(value: str, root: Path) -> Path:
    base = os.path.abspath(root)
    path = os.path.normpath(os.path.join(base, value))
    if os.path.commonpath([base, path]) != base:
        raise ValueError(f"media path leaves the data folder: {value}")
    return Path(path)


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    if any("text" not in item for item in content):
        raise ValueError("media are taken in the user's turn only")
    return "".join(str(item["text"]) for item in content)
