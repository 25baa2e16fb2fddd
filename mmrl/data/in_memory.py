"""Rows from Python -> a file of records, which a resumed run and people can read again."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from mmrl.errors import DataError
from mmrl.runlog.journal import to_json

PICTURES = ("image", "images")
"""Columns of the task `custom` that hold a picture, or a list of them."""


def write_rows(rows: Iterable[Mapping[str, Any]], folder: Path) -> Path:
    """Write rows as records under `folder` and return their file, named after what is in them.

    A picture in `image` or `images` is a PIL image, the bytes of a file, or a path. The same rows
    give the same file. A row that is no mapping raises DataError.
    """
    pictures: dict[str, bytes | Path] = {}
    lines = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(f"row {number} of the data is {type(row).__name__}, not a mapping")
        try:
            lines.append(to_json({k: _kept(k, v, pictures) for k, v in row.items()}) + b"\n")
        except (OSError, ValueError) as error:
            raise DataError(f"row {number} of the data: {error}") from None
    text = b"".join(lines)
    place = folder / sha256(text).hexdigest()[:12]
    if not (place / "records.jsonl").is_file():
        _write(place, text, pictures)
    return place / "records.jsonl"


def _kept(column: str, value: Any, pictures: dict[str, bytes | Path]) -> Any:
    """The value as a record holds it; pictures by a name that says what they are."""
    if column not in PICTURES or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_kept(column, one, pictures) for one in value]
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        return value
    content, ending = _content(value)
    told = str(content).encode() if isinstance(content, Path) else content
    name = f"{sha256(told).hexdigest()[:24]}{ending}"
    pictures[name] = content
    return name


def _content(value: Any) -> tuple[bytes | Path, str]:
    """A file's place, or bytes to be written, with the ending of the name."""
    if isinstance(value, Image.Image):
        buffer = BytesIO()
        value.save(buffer, "PNG")
        return buffer.getvalue(), ".png"
    if isinstance(value, bytes):
        return value, ".bin"
    if isinstance(value, str | Path):
        path = Path(value).absolute()
        if not path.is_file():
            raise ValueError(f"no picture at {path}")
        return path, path.suffix
    raise ValueError(f"a picture is a PIL image, bytes or a path, not {type(value).__name__}")


def _write(place: Path, text: bytes, pictures: Mapping[str, bytes | Path]) -> None:
    """Write pictures, then the file that names them; what is half written is not found."""
    partial = place.with_name(f".{place.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, content in pictures.items():
        if isinstance(content, Path):
            (partial / name).symlink_to(content)
        else:
            (partial / name).write_bytes(content)
    (partial / "records.jsonl").write_bytes(text)
    partial.rename(place)
