"""Raw data files -> records with stable ids."""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mmrl.errors import UserError, one_line
from mmrl.types import MediaKind, MediaRef, Part, Record, Text


def read_records(path: Path) -> Iterator[Record]:
    """Read a .jsonl, .json (a list of objects) or .parquet file in file order.

    A record's id is its `id` field where it has one, else file name and line number. Media paths
    are relative to the file's folder. A line that is not an object raises UserError.
    """
    if not path.is_file():
        raise UserError(f"no data file at {path}: check data.path")
    for number, fields in _rows(path):
        if not isinstance(fields, dict):
            raise UserError(f"{path}:{number}: expected an object, found {type(fields).__name__}")
        yield Record(str(fields.get("id", f"{path.stem}-{number}")), fields, path.parent)


def media_source(record: Record, value: Any) -> Path | bytes:
    """Resolve a media column for a MediaRef: the absolute path, or the encoded bytes.

    `value` is a path relative to the record's root, bytes, or the `{"bytes", "path"}` pair of
    Hugging Face parquet files. A path that leaves the root, or anything else, raises ValueError.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError(f"not a media path or bytes: {value!r:.60}")
    root = os.path.abspath(record.root)
    path = os.path.normpath(os.path.join(root, value))
    # Lexical on purpose: a link inside the root may point to where its owner keeps the files.
    if os.path.commonpath([root, path]) != root:
        raise ValueError(f"media path leaves the data folder: {value}")
    return Path(path)


def interleave(text: str, placeholder: str, media: Sequence[MediaRef]) -> tuple[Part, ...]:
    """Put each medium where its placeholder stands; a text without any follows its media.

    Placeholders and media that differ in number raise ValueError.
    """
    texts = text.split(placeholder)
    if len(texts) == 1:
        return (*media, Text(text))
    if len(texts) - 1 != len(media):
        raise ValueError(f"{len(texts) - 1} {placeholder} placeholders for {len(media)} media")
    parts: list[Part] = []
    for piece, medium in zip_longest(texts, media):
        parts += [Text(piece)] if piece else []
        parts += [medium] if medium else []
    return tuple(parts)


def media_refs(record: Record, kind: MediaKind, *columns: str) -> list[MediaRef]:
    """The media of the first of these columns that is filled; one holds a medium or a list."""
    for column in columns:
        value = record.fields.get(column)
        if value:
            items = value if isinstance(value, list | tuple) else [value]
            return [MediaRef(kind, media_source(record, item)) for item in items]
    return []


def interleave_numbered(
    text: str, placeholder: re.Pattern[str], media: Mapping[int, MediaRef]
) -> tuple[Part, ...]:
    """Put medium n where the placeholder with number n (its group 1) stands, each time.

    Media that the text does not mention precede it; a number without a medium raises ValueError.
    """
    pieces = placeholder.split(text)
    mentioned = [int(number) for number in pieces[1::2]]
    parts: list[Part] = [medium for n, medium in media.items() if n not in mentioned]
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            parts += [Text(piece)] if piece else []
        elif int(piece) not in media:
            raise ValueError(f"the text shows medium {piece}, the record has {sorted(media)}")
        else:
            parts.append(media[int(piece)])
    return tuple(parts)


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Each value of a JSON Lines file with its line's number, from 1; blank lines are passed over.

    A line that is not JSON raises UserError.
    """
    with _utf8(path), path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _parse(line, f"{path}:{number}")


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    match path.suffix:
        case ".jsonl":
            yield from json_lines(path)
        case ".json":
            yield from enumerate(_json_list(path), 1)
        case ".parquet":
            yield from enumerate(_parquet_rows(path), 1)
        case other:
            raise UserError(f"{path}: cannot read '{other}' files; use .jsonl, .json or .parquet")


def _json_list(path: Path) -> list[Any]:
    with _utf8(path):
        text = path.read_text(encoding="utf-8")
    rows = _parse(text, str(path))
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of objects, found {type(rows).__name__}")
    return rows


@contextmanager
def _utf8(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error})") from None


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        raise UserError(f"{where}: not JSON ({error})") from None


def _parquet_rows(path: Path) -> Iterator[Any]:
    for batch in parquet_batches(path):
        yield from batch.to_pylist()


def parquet_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Read a .parquet file as record batches of a few rows, since rows may hold whole media."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError("reading .parquet needs pyarrow: pip install 'mmrl[data]'") from None
    try:
        yield from parquet.ParquetFile(path).iter_batches(batch_size=16, columns=columns)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path}: not a whole parquet file ({one_line(error)})") from None
