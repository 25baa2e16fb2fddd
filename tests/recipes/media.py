"""Small readable media at given paths, and files in the formats that data sets come in."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import wave
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

from mmrl.recipes.tfrecord import masked_crc
from mmrl.scoring.tasks import fixture_path


def picture_bytes(seed: int, size: tuple[int, int] = (64, 48), form: str = "PNG") -> bytes:
    """A picture that differs with the seed."""
    tiles = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(tiles).resize(size, Image.Resampling.NEAREST).save(buffer, form, quality=90)
    return buffer.getvalue()


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (64, 48)) -> Path:
    form = "PNG" if path.suffix == ".png" else "JPEG"
    return write(path, picture_bytes(seed, size, form))


def sound(path: Path, seed: int = 0) -> Path:
    """A tenth of a second of noise at 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-9999, 9999, 1600, dtype=np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(noise.tobytes())
    return path


def video(path: Path) -> Path:
    """One of the drawn videos of a task's fixture, 2 s long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(fixture_path("video_choice").parent / "videos" / "two.mp4", path)
    return path


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_json(path: Path, value: Any) -> Path:
    return write(path, json.dumps(value))


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def hub_picture(seed: int) -> dict[str, Any]:
    """A picture as a cell of the hub's parquet files."""
    return {"bytes": picture_bytes(seed), "path": f"{seed}.png"}


def write_tfrecord(path: Path, rows: list[dict[str, list[Any]]]) -> Path:
    """A gzipped TFRecord file of Examples with features of bytes and small whole numbers."""

    def field(number: int, content: bytes) -> bytes:
        size, prefix = len(content), bytearray([number << 3 | 2])
        while size > 0x7F:
            prefix.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes([*prefix, size]) + content

    def feature(values: list[Any]) -> bytes:
        if isinstance(values[0], int):
            return field(3, field(1, bytes(values)))
        return field(1, b"".join(field(1, value) for value in values))

    body = b""
    for row in rows:
        entries = (
            field(1, field(1, name.encode()) + field(2, feature(v))) for name, v in row.items()
        )
        example = field(1, b"".join(entries))
        length = struct.pack("<Q", len(example))
        body += length + struct.pack("<I", masked_crc(length)) + example + b"\0\0\0\0"
    return write(path, gzip.compress(body))
