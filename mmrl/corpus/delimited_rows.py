"""CSV and TSV files by the offsets of their rows; cells may hold line breaks."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmrl.corpus.json_rows import BOM, IndexedFile
from mmrl.corpus.table import named
from mmrl.errors import DataError

_MAX_CELL = 1 << 30


class Delimited:
    """The first row names the columns; an empty cell is a column that the row lacks."""

    def __init__(self, path: Path) -> None:
        csv.field_size_limit(max(_MAX_CELL, csv.field_size_limit()))
        self._file, self._path = IndexedFile(path), path
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        self.format = "TSV" if self._delimiter == "\t" else "CSV"
        rows = list(self._index())
        if not rows:
            raise DataError(f"{path}: empty, the first line should name the columns")
        self._columns = self._cells(*rows[0])
        self._starts = np.array([start for start, _ in rows[1:]], dtype=np.int64)
        self._ends = np.array([end for _, end in rows[1:]], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def row(self, number: int) -> dict[str, Any]:
        cells = self._cells(self._starts[number], self._ends[number])
        if len(cells) > len(self._columns):
            raise DataError(
                f"{self._path}: row {number + 1} has {len(cells)} cells for "
                f"{len(self._columns)} columns"
            )
        return {name: cell for name, cell in zip(self._columns, cells, strict=False) if cell != ""}

    def name(self, number: int, row: dict[str, Any]) -> str:
        return named(row, f"{self._path.stem}-{number + 1}")

    def names(self) -> Iterator[str]:
        return (self.name(i, self.row(i)) for i in range(len(self)))

    def root(self, number: int) -> Path:
        return self._path.parent

    def _cells(self, start: int, end: int) -> list[str]:
        try:
            text = self._file.read(start, end).removeprefix(BOM).decode("utf-8")
            return next(csv.reader(text.splitlines(keepends=True), delimiter=self._delimiter))
        except UnicodeDecodeError as error:
            raise DataError(f"{self._path}: not UTF-8 text ({error})") from None
        except csv.Error as error:
            raise DataError(f"{self._path}: not {self.format} ({error})") from None

    def _index(self) -> Iterator[tuple[int, int]]:
        """Starts and ends of the rows that hold something, the names' row among them."""
        at = 0

        def lines() -> Iterator[str]:
            nonlocal at
            with self._path.open("rb") as file:
                for line in file:
                    at += len(line)
                    yield line.decode("latin-1")  # the marks of CSV are ASCII, offsets are bytes

        start = 0
        try:
            for cells in csv.reader(lines(), delimiter=self._delimiter):
                if any(cells):
                    yield start, at
                start = at
        except csv.Error as error:
            raise DataError(f"{self._path}: not {self.format} ({error})") from None
