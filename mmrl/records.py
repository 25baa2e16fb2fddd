"""Raw data files -> records with stable ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmrl.errors import UserError
from mmrl.types import Record


def read_records(path: Path) -> Iterator[Record]:
    """Read a .jsonl, .json (a list of objects) or .parquet file in file order.

    A record's id is its `id` field where it has one, else file name and line number. Media paths
    are relative to the file's folder. A line that is not an object raises UserError.
    """
    if not path.is_file():
        raise UserError(f"no data file at {path}: check data.path")
    for number, fields in enumerate(_rows(path), 1):
        if not isinstance(fields, dict):
            raise UserError(f"{path}:{number}: expected an object, found {type(fields).__name__}")
        yield Record(str(fields.get("id", f"{path.stem}-{number}")), fields, path.parent)


def _rows(path: Path) -> Iterator[Any]:
    match path.suffix:
        case ".jsonl":
            yield from _json_lines(path)
        case ".json":
            yield from _json_list(path)
        case ".parquet":
            yield from _parquet_rows(path)
        case other:
            raise UserError(f"{path}: cannot read '{other}' files; use .jsonl, .json or .parquet")


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _parse(line, f"{path}:{number}")


def _json_list(path: Path) -> Iterator[Any]:
    rows = _parse(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of objects, found {type(rows).__name__}")
    yield from rows


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error})") from None


def _parquet_rows(path: Path) -> Iterator[Any]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError("reading .parquet needs pyarrow: pip install 'mmrl[data]'") from None
    for batch in parquet.ParquetFile(path).iter_batches(batch_size=256):
        yield from batch.to_pylist()
