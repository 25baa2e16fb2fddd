"""JSON Lines and JSON arrays by the offsets of their rows."""

from __future__ import annotations

import json
import mmap
import os
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmrl.corpus.table import Table, named
from mmrl.errors import DataError
from mmrl.types import Ints

BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 24
_SHORT = 64


class JsonLines:
    """One object a line; blank lines are passed over, a mark of byte order too."""

    format = "JSON Lines"

    def __init__(self, path: Path) -> None:
        self._file = IndexedFile(path)
        starts, ends = _lines(self._file)
        self._starts, self._ends, self._numbers = _filled(self._file, starts, ends)

    def __len__(self) -> int:
        return len(self._starts)

    def row(self, number: int) -> dict[str, Any]:
        value = self.value(number)
        if not isinstance(value, dict):
            where = self.where(number)
            raise DataError(f"{where}: expected an object, found {type(value).__name__}")
        return value

    def value(self, number: int) -> Any:
        """What stands in a row's line; raises DataError where it is not JSON."""
        return self._file.parse(self._starts[number], self._ends[number], self.where(number))

    def where(self, number: int) -> str:
        """A row's file and line."""
        return f"{self._file.path}:{self.line(number)}"

    def line(self, number: int) -> int:
        """The line, from 1, of a row."""
        return int(self._numbers[number])

    def name(self, number: int, row: dict[str, Any]) -> str:
        return named(row, f"{self._file.path.stem}-{self.line(number)}")

    def names(self) -> Iterator[str]:
        return (self.name(i, self.row(i)) for i in range(len(self)))

    def root(self, number: int) -> Path:
        return self._file.path.parent


class JsonArray(JsonLines):
    """A list of objects; where each begins is found by its brackets."""

    format = "JSON array"

    def __init__(self, path: Path) -> None:
        self._file = IndexedFile(path)
        self._starts, self._ends = _elements(self._file)
        self._numbers = np.arange(1, len(self._starts) + 1)


def open_json(path: Path) -> Table:
    """A .json file: a list of objects, or JSON Lines under that name.

    Raises DataError for one object: it is no list of records.
    """
    file = IndexedFile(path)
    if (lines := _as_lines(file)) is not None:
        return lines
    if _head(file) != b"[":
        value = file.parse(0, file.size, str(path))
        raise DataError(f"{path}: expected a list of objects, found {type(value).__name__}")
    return JsonArray(path)


def is_object(path: Path) -> bool:
    """Whether a .json file holds one object, neither a list nor JSON Lines."""
    if not path.is_file():
        return False
    file = IndexedFile(path)
    return _head(file) == b"{" and _as_lines(file) is None


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Each value of a JSON Lines file with its line's number, from 1; blank lines are passed over.

    A line that is not JSON raises DataError.
    """
    table = JsonLines(path)
    return ((table.line(i), table.value(i)) for i in range(len(table)))


class IndexedFile:
    """A file that is read at offsets, by several threads at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handle = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.handle)
        self.size = os.fstat(self.handle).st_size

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`."""
        wanted, at, read = int(end) - int(start), int(start), b""
        while len(read) < wanted:  # one call reads two gigabytes at most
            piece = os.pread(self.handle, wanted - len(read), at + len(read))
            if not piece:
                break
            read += piece
        return read

    def parse(self, start: int, end: int, where: str) -> Any:
        """The JSON value between two offsets; raises DataError where there is none."""
        try:
            return json.loads(self.read(start, end).removeprefix(BOM).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 text ({error})") from None
        except (ValueError, RecursionError) as error:  # also a number of too many digits
            raise DataError(f"{where}: not JSON ({error})") from None


def _head(file: IndexedFile) -> bytes:
    """The first character that is not white space."""
    return file.read(0, min(file.size, 4096)).removeprefix(BOM).lstrip()[:1]


def _as_lines(file: IndexedFile) -> JsonLines | None:
    """The file as JSON Lines, if its first line is an object and others follow."""
    if _head(file) != b"{":
        return None
    table = JsonLines(file.path)
    try:
        return table if len(table) > 1 and isinstance(table.value(0), dict) else None
    except DataError:
        return None


def _lines(file: IndexedFile) -> tuple[Ints, Ints]:
    """Starts and ends (before the line feed) of all lines."""
    feeds = []
    for start in range(0, file.size, _CHUNK):
        chunk = np.frombuffer(file.read(start, min(start + _CHUNK, file.size)), dtype=np.uint8)
        feeds.append(np.flatnonzero(chunk == 10) + start)
    ends = np.concatenate([*feeds, [file.size]]).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    return starts, ends


def _filled(file: IndexedFile, starts: Ints, ends: Ints) -> tuple[Ints, Ints, Ints]:
    """The lines that hold something, and their numbers from 1."""
    kept = ends > starts
    for i in np.flatnonzero(kept & (ends - starts < _SHORT)):
        kept[i] = bool(file.read(starts[i], ends[i]).removeprefix(BOM).strip())
    return starts[kept], ends[kept], np.flatnonzero(kept) + 1


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)


def _elements(file: IndexedFile) -> tuple[Ints, Ints]:
    """Starts and ends of the elements of a file's list."""
    starts: list[int] = []
    ends: list[int] = []
    depth, begin = 0, 0
    with mmap.mmap(file.handle, 0, access=mmap.ACCESS_READ) as text:
        for token in _TOKEN.finditer(text):
            mark = text[token.start()]
            if mark in b"[{":
                depth += 1
                begin = token.end() if depth == 1 else begin
            elif mark in b"]}" or (mark == ord(",") and depth == 1):
                if depth == 1:
                    starts.append(begin)
                    ends.append(token.start())
                    begin = token.end()
                depth -= mark in b"]}"
                if not depth:
                    break
    if starts and not file.read(starts[-1], ends[-1]).strip():
        starts.pop()
        ends.pop()
        depth += bool(starts)  # a comma before the end
    if depth or file.read(begin, file.size).strip():
        file.parse(0, file.size, str(file.path))  # says where it is not JSON
    return np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64)
