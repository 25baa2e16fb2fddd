"""What a column or a message gives as a medium -> a path, encoded bytes, or a URL."""

from __future__ import annotations

import base64
import binascii
import os.path
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from mmrl.types import MediaSource

REMOTE = ("http://", "https://")
INNER = ("bytes", "path", "url", "uri", "image", "video", "audio", "image_url", "video_url",
         "audio_url", "input_audio", "data", "base64")  # fmt: skip
"""Keys under which a mapping holds the medium itself, first the one that is preferred."""

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{48,}={0,2}\s*")
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"fLaC",
          b"OggS", b"ID3", b"\xff\xfb", b"\x1aE\xdf\xa3")  # fmt: skip
_EXTENSION = re.compile(
    r"\.(png|jpe?g|jfif|gif|webp|bmp|tiff?|avif|heic|mp4|m4v|mkv|webm|mov|avi|flv|wmv|mpe?g|m2?ts|h26[45]"
    r"|wav|mp3|flac|ogg|opus|m4a|aac|aiff?)$",
    re.IGNORECASE,
)


def unwrap(value: Any) -> Any:
    """The medium inside of a mapping such as `{"bytes", "path"}`, `{"url"}` or `{"image"}`."""
    while isinstance(value, Mapping):
        held = next((value[key] for key in INNER if value.get(key)), None)
        if held is None:
            raise ValueError(f"no medium in {dict(value)!r:.60}")
        base64_key = value.get("data") is held or value.get("base64") is held
        value = decoded(held) if base64_key and isinstance(held, str) else held
    return value


def decoded(text: str) -> bytes:
    """The bytes of base64 text, with or without the head of a data: URL; ValueError otherwise."""
    body = text
    if text.startswith("data:"):
        head, found, body = text.partition("base64,")
        if not found or len(head) > 80:
            raise ValueError("a data: URL must be base64")
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None


def source_of(value: Any, root: Path, roots: Sequence[Path] = ()) -> MediaSource:
    """Resolve a medium: bytes as they are, data: URLs and base64 as bytes, http(s) as a URL.

    A path (with or without `file://`) is relative to `root`, or to one of the `roots` if it is not
    there, and may leave none of them. Raises ValueError for that and for what is no medium.
    """
    value = unwrap(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"not a media path or bytes: {value!r:.60}")
    if value.startswith("data:"):
        return decoded(value)
    if value.startswith(REMOTE):
        return value
    if (held := _base64(value)) is not None:
        return held
    path = unquote(urlparse(value).path) if value.startswith("file://") else value
    return below(path, root, roots)


def below(value: str, root: Path, roots: Sequence[Path] = ()) -> Path:
    """The absolute path of a file under one of the roots: where it exists, else under the first.

    Raises ValueError for a path that leaves them all.
    """
    allowed = [os.path.abspath(each) for each in (root, *roots)]
    found = []
    for base in allowed:
        # Lexical on purpose: a link inside a root may point to where its owner keeps the files.
        path = os.path.normpath(os.path.join(base, value))
        if any(os.path.commonpath([each, path]) == each for each in allowed):
            found.append(path)
    if not found:
        raise ValueError(
            f"media path leaves the data folder: {value} (data.media_roots may allow others)"
        )
    return Path(next(filter(os.path.exists, found), found[0]))


def media_within(value: Any, depth: int = 4) -> Iterator[Any]:
    """What can only be a medium in a value, however deep in lists and mappings."""
    if looks_like_media(value) and not isinstance(value, list | tuple):
        yield value
    elif depth and isinstance(value, Mapping):
        for held in value.values():
            yield from media_within(held, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for held in value:
            yield from media_within(held, depth - 1)


def looks_like_media(value: Any) -> bool:
    """Whether a value can only be a medium: encoded bytes, a data: URL, a file of a media type."""
    if isinstance(value, Mapping):
        return isinstance(value.get("bytes"), bytes) or looks_like_media(value.get("path"))
    if isinstance(value, list | tuple):
        return bool(value) and all(looks_like_media(item) for item in value)
    if isinstance(value, str):
        if value.startswith(("data:image/", "data:video/", "data:audio/")):
            return True
        if len(value) >= 48 and _base64(value) is not None:
            return True
        return len(value) < 1024 and "\n" not in value and bool(_EXTENSION.search(value))
    return isinstance(value, bytes) and value.startswith(_MAGIC)


def _base64(value: str) -> bytes | None:
    """The bytes of bare base64, known by what they begin with; None for anything else."""
    if len(value) < 48 or not _BASE64.fullmatch(value):
        return None
    try:
        held = decoded(value)
    except ValueError:
        return None
    return held if held.startswith(_MAGIC) or held[4:8] == b"ftyp" else None
