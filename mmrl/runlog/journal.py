"""Append-only JSON Lines files of a run folder that survive a kill and rewind on resume."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np


class Journal:
    """One JSON object a line; a half-written last line is as if it had never been started."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._clean = False

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the rows in one go and sync them to disk, so that a kill loses at most one step."""
        payload = b"".join(to_json(row) + b"\n" for row in rows)
        if not payload:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._clean:
            self._drop_half_line()
        with self.path.open("ab") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the objects in order; lines that are not whole JSON objects are passed over."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            for line in file:
                row = parse_line(line)
                if row is not None:
                    yield row

    def truncate_to_step(self, step: int) -> None:
        """Keep the rows of `step` and earlier (and rows without a step); drop broken lines."""
        if not self.path.is_file():
            return
        kept = self.path.with_name(self.path.name + ".tmp")
        with self.path.open("rb") as source, kept.open("wb") as target:
            for line in source:
                row = parse_line(line)
                if row is not None and row.get("step", step) <= step:
                    target.write(line)
            target.flush()
            os.fsync(target.fileno())
        os.replace(kept, self.path)
        self._clean = True

    def _drop_half_line(self) -> None:
        self._clean = True
        if not self.path.is_file():
            return
        with self.path.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            position = end
            while position > 0:
                start = max(0, position - 65536)
                file.seek(start)
                newline = file.read(position - start).rfind(b"\n")
                if newline >= 0:
                    position = start + newline + 1
                    break
                position = start
            if position < end:
                file.truncate(position)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the object on a line, or None where the line is half-written or no JSON object."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def to_json(value: Any) -> bytes:
    """Encode as one line of strict JSON: NaN and infinities become null."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    # A lone surrogate is no UTF-8; its backslash form is a valid JSON escape.
    return text.encode("utf-8", "backslashreplace")


def plain(value: Any) -> Any:
    """Turn numpy values, dataclasses, paths and containers into what JSON knows; else `str`."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [plain(item) for item in sorted(value, key=str)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, PurePath):
        return value.as_posix()
    return str(value)
