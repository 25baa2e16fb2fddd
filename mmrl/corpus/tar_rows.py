"""WebDataset tars: files that share a name up to its first dot are one row."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mmrl.corpus.json_rows import IndexedFile
from mmrl.corpus.media_values import looks_like_media
from mmrl.corpus.table import named
from mmrl.errors import DataError, one_line

_TEXT = {"txt", "cls", "caption", "text"}
_SOUND = {"wav", "mp3", "flac", "ogg", "opus", "m4a", "aac", "aiff"}
_MOVING = {"mp4", "m4v", "mkv", "webm", "mov", "avi", "mpg", "mpeg", "ts"}


class Tar:
    """Only where each member stands is held: names, media and texts are read from the file."""

    format = "WebDataset tar"

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, IndexedFile(path)
        extensions: dict[str, int] = {}
        members: list[tuple[int, int, int]] = []
        firsts: list[int] = []
        keys: list[str] = []
        for key, extension, start, size in _members(path):
            if not keys or key != keys[-1]:
                keys.append(key)
                firsts.append(len(members))
            members.append((extensions.setdefault(extension, len(extensions)), start, size))
        self._members = np.array(members, dtype=np.int64).reshape(-1, 3)
        self._firsts = np.array([*firsts, len(members)], dtype=np.int64)
        self._extensions = list(extensions)
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def row(self, number: int) -> dict[str, Any]:
        row: dict[str, Any] = {"__key__": self._keys[number]}
        media: dict[str, list[bytes]] = {}
        for which, start, size in self._members[slice(*self._firsts[number : number + 2])]:
            extension = self._extensions[which]
            held = self._file.read(start, start + size)
            kind = _kind(extension)
            if kind is not None:
                media.setdefault(kind, []).append(held)
            elif extension.rpartition(".")[2] == "json":
                row |= self._json(held, number)
            else:
                name = extension if extension in _TEXT else extension.partition(".")[0]
                row["label" if name == "cls" else name] = held.decode("utf-8", "replace").strip()
        for kind, found in media.items():
            row |= {kind: found[0]} if len(found) == 1 else {f"{kind}s": found}
        return row

    def name(self, number: int, row: dict[str, Any]) -> str:
        return named(row, self._keys[number])

    def names(self) -> Iterator[str]:
        # A row's JSON may hold an id; the media beside it need not be read for that.
        for number, key in enumerate(self._keys):
            row: dict[str, Any] = {}
            for which, start, size in self._members[slice(*self._firsts[number : number + 2])]:
                if self._extensions[which].rpartition(".")[2] == "json":
                    row |= self._json(self._file.read(start, start + size), number)
            yield named(row, key)

    def root(self, number: int) -> Path:
        return self._path.parent

    def _json(self, held: bytes, number: int) -> dict[str, Any]:
        try:
            found = json.loads(held)
        except ValueError as error:
            raise DataError(f"{self._path}, {self._keys[number]}: not JSON ({error})") from None
        return found if isinstance(found, dict) else {"messages": found}


def _members(path: Path) -> Iterator[tuple[str, str, int, int]]:
    try:
        with tarfile.open(path, "r:") as file:
            for member in file:
                base = PurePosixPath(member.name)
                if member.isfile() and not base.name.startswith("."):
                    stem, _, extension = base.name.partition(".")
                    key = str(base.with_name(stem))
                    yield key, extension.lower(), member.offset_data, member.size
    except tarfile.TarError as error:
        raise DataError(
            f"{path}: not a plain tar file ({one_line(error)}); unpack what is compressed"
        ) from None


def _kind(extension: str) -> str | None:
    """The kind of medium that a member holds, by the end of its name."""
    last = extension.rpartition(".")[2]
    if not looks_like_media(f"x.{last}"):
        return None
    return "audio" if last in _SOUND else "video" if last in _MOVING else "image"
