"""Raw data files -> records with stable ids."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mmrl.corpus.fields import Fields
from mmrl.corpus.shown import source
from mmrl.corpus.table import Table, open_table
from mmrl.types import MediaKind, MediaRef, MediaSource, Part, Record, Text


def read_records(
    path: Path,
    columns: Mapping[str, str | None] | None = None,
    roots: Sequence[Path] = (),
) -> Iterator[Record]:
    """Read data of any layout in its order: a file, a folder or glob of shards, a hub's data set.

    `columns` says in which columns asked names are, `roots` where media may be besides the data's
    own folder. A record's id is its `id` where it has one, else file name and line number. What
    cannot be read raises UserError.
    """
    table = open_table(path)
    return (record_of(table, i, columns, roots) for i in range(len(table)))


def record_of(
    table: Table,
    number: int,
    columns: Mapping[str, str | None] | None = None,
    roots: Sequence[Path] = (),
) -> Record:
    """The record of a table's row; media paths are relative to the folder of the row's file."""
    row = table.row(number)
    return Record(table.name(number, row), Fields(row, columns), table.root(number), tuple(roots))


def media_source(record: Record, value: Any) -> MediaSource | tuple[MediaSource, ...]:
    """Resolve a media column for a MediaRef: an absolute path, encoded bytes, a URL, or frames.

    `value` is a path relative to the record's root (or one of its `roots`), with or without
    `file://`; bytes, base64, a data: URL; an http(s) URL, which is fetched only if options allow
    it; the `{"bytes", "path"}` of Hugging Face's files or another mapping that holds one of these;
    or a list of them, a video's frames. A path that leaves the roots, or anything else, raises
    ValueError.
    """
    return source(record, value)


def file_source(record: Record, value: Any) -> Path | bytes:
    """Resolve a column that holds a file which is no medium to show: a mask, a database."""
    found = source(record, value)
    if not isinstance(found, Path | bytes):
        raise ValueError(f"not a path or bytes: {value!r:.60}")
    return found


def media_ref(record: Record, kind: MediaKind, value: Any, **options: Any) -> MediaRef:
    """Refer to a media column; raises ValueError as `media_source` does."""
    return MediaRef(kind, media_source(record, value), options)


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
