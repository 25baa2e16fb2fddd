"""Media beside the records: linked or copied in place, hashed once."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path, PurePosixPath

from mmrl.recipes.medium import LeftOut, Medium

_MAGIC = (
    (b"\x89PNG", ".png"), (b"\xff\xd8\xff", ".jpg"), (b"GIF8", ".gif"), (b"BM", ".bmp"),
    (b"II*\0", ".tif"), (b"MM\0*", ".tif"), (b"ID3", ".mp3"), (b"\xff\xfb", ".mp3"),
    (b"fLaC", ".flac"), (b"OggS", ".ogg"), (b"\x1aE\xdf\xa3", ".mkv"),
)  # fmt: skip
HASH_CHARACTERS = 32  # of a sha256, enough to tell media apart
_RIFF = {b"WEBP": ".webp", b"WAVE": ".wav", b"AVI ": ".avi"}


class MediaStore:
    """Places media below `out` and knows the sha256 of each.

    Files are linked where they are; `copy` copies them. Both give the same records.
    """

    def __init__(self, out: Path, *, copy: bool = False) -> None:
        self._out, self._copy = out, copy
        self.hashes: dict[str, str] = {}

    def place(self, medium: Medium) -> str:
        """Put a medium beside the records and return its path relative to them.

        A file that is missing or empty raises LeftOut.
        """
        if isinstance(medium.content, bytes):
            return self._write(medium.content, medium.place)
        assert medium.place is not None
        name = medium.place.as_posix()
        if name not in self.hashes:
            if not medium.content.is_file():
                raise LeftOut(f"no file for its medium: {medium.place.suffix or 'without ending'}")
            if not medium.content.stat().st_size:
                raise LeftOut("its medium is an empty file")
            target = self._out / medium.place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            if self._copy:
                shutil.copyfile(medium.content, target)
            else:
                os.symlink(medium.content.resolve(), target)
            self.hashes[name] = sha256(medium.content)
        return name

    def withdraw(self, since: int) -> None:
        """Take the media away again that were placed after the first `since`."""
        for name in list(self.hashes)[since:]:
            (self._out / name).unlink()
            del self.hashes[name]

    def keep_only(self, hashes: set[str]) -> None:
        """Take the media away whose hash starts with none of these fingerprints."""
        for name, digest in list(self.hashes.items()):
            if digest[:HASH_CHARACTERS] not in hashes:
                (self._out / name).unlink()
                del self.hashes[name]

    def _write(self, content: bytes, place: PurePosixPath | None) -> str:
        digest = hashlib.sha256(content).hexdigest()
        name = f"media/{digest[:2]}/{digest[:HASH_CHARACTERS]}{_suffix(content)}"
        if place is not None:
            name = place.as_posix()
        if name not in self.hashes:
            target = self._out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.write_bytes(content)
            self.hashes[name] = digest
        return name


def sha256(path: Path) -> str:
    """The file's hash, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _suffix(content: bytes) -> str:
    if content[:4] == b"RIFF":
        return _RIFF.get(content[8:12], ".riff")
    if content[4:8] == b"ftyp":
        return ".mp4"
    return next((suffix for magic, suffix in _MAGIC if content.startswith(magic)), ".bin")
