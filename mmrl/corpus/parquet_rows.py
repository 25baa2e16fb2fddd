"""Parquet files by row group and row: a row's pictures are read with it and not kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmrl.corpus.table import named
from mmrl.errors import DataError, one_line

_ROWS = 16  # decoded at once: rows may hold whole media
_BUFFER = 1 << 18


class Parquet:
    """Reads on from the last row where the next one stands behind it in the same row group."""

    format = "parquet"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _open(path)
        counts = [
            self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)
        ]
        self._ends = np.cumsum(np.array(counts, dtype=np.int64))
        self._lock = threading.Lock()
        self._group, self._first = -1, 0
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def row(self, number: int) -> dict[str, Any]:
        group = int(np.searchsorted(self._ends, number, side="right"))
        own = number - (int(self._ends[group - 1]) if group else 0)
        with self._lock:
            if group != self._group or own < self._first:
                self._group, self._first, self._batch = group, 0, None
                self._batches = _reading(
                    self._path, self._file.iter_batches(batch_size=_ROWS, row_groups=[group])
                )
            while self._batch is None or own >= self._first + len(self._batch):
                self._first += 0 if self._batch is None else len(self._batch)
                self._batch = next(self._batches)
            row: dict[str, Any] = self._batch.slice(own - self._first, 1).to_pylist()[0]
            return row

    def name(self, number: int, row: dict[str, Any]) -> str:
        return named(row, f"{self._path.stem}-{number + 1}")

    def names(self) -> Iterator[str]:
        if "id" not in self._file.schema_arrow.names:
            return (f"{self._path.stem}-{i + 1}" for i in range(len(self)))
        ids = (v for batch in parquet_batches(self._path, ["id"]) for v in batch[0].to_pylist())
        return (self.name(i, {"id": own}) for i, own in enumerate(ids))

    def root(self, number: int) -> Path:
        return self._path.parent


def parquet_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Read a .parquet file as record batches of a few rows, since rows may hold whole media."""
    yield from _reading(path, _open(path).iter_batches(batch_size=_ROWS, columns=columns))


def _open(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError("reading .parquet needs pyarrow: pip install 'mmrl[data]'") from None
    try:
        return parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: not a whole parquet file ({one_line(error)})") from None


def _reading(path: Path, batches: Iterator[Any]) -> Iterator[Any]:
    import pyarrow

    try:
        yield from batches
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a whole parquet file ({one_line(error)})") from None
