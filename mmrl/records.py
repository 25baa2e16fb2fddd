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

    Args:
        path: as `data.path` of a configuration.
        columns: in which columns, or at which paths in them, asked names are.
        roots: folders besides the data's own in which media may be.

    Returns:
        Records as they are read. An id is the record's `id`, else file name and line number.

    Raises:
        UserError: what cannot be read.

    Example:
        >>> _ = Path("a.jsonl").write_text('{"q": "What?", "answer": "dog"}')
        >>> record = next(read_records(Path("a.jsonl"), {"question": "q"}))
        >>> record.id, record.fields["question"]
        ('a-1', 'What?')
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
    """Resolve a media column for a MediaRef.

    Args:
        record: where the column is from; paths are relative to its `root`.
        value: a path, with or without `file://`; bytes, base64, a data: URL; an http(s) URL, which
            is fetched only if options allow it; the `{"bytes", "path"}` of Hugging Face's files or
            another mapping that holds one of these; or a list of them, a video's frames.

    Returns:
        An absolute path, encoded bytes, a URL, or frames.

    Raises:
        ValueError: a path that leaves the record's roots, or anything else.

    Example:
        >>> media_source(Record("1", {}, Path("/data")), "a.png")
        PosixPath('/data/a.png')
    """
    return source(record, value)


def file_source(record: Record, value: Any) -> Path | bytes:
    """Resolve a column that holds a file which is no medium to show: a mask, a database."""
    found = source(record, value)
    if not isinstance(found, Path | bytes):
        raise ValueError(f"not a path or bytes: {value!r:.60}")
    return found


def media_ref(record: Record, kind: MediaKind, value: Any, **options: Any) -> MediaRef:
    """Refer to a media column; raises ValueError as `media_source` does.

    Args:
        record: where the column is from.
        kind: image, video, audio or screenshot.
        value: what `media_source` takes.
        options: those of the modality.

    Example:
        >>> media_ref(Record("1", {}, Path("/data")), "image", "a.png", turn="mirror").options
        {'turn': 'mirror'}
    """
    return MediaRef(kind, media_source(record, value), options)


def interleave(text: str, placeholder: str, media: Sequence[MediaRef]) -> tuple[Part, ...]:
    """Put each medium where its placeholder stands; a text without any follows its media.

    Args:
        text: the question.
        placeholder: what stands for a medium, such as `<image>`.
        media: as many as there are placeholders; else ValueError is raised.

    Example:
        >>> parts = interleave("Is <image> a dog?", "<image>", [MediaRef("image", "a.png")])
        >>> [type(part).__name__ for part in parts]
        ['Text', 'MediaRef', 'Text']
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
    """The media of the first of these columns that is filled; one holds a medium or a list.

    Args:
        record: where the columns are.
        kind: image, video, audio or screenshot.
        columns: their names, the first choice first.

    Example:
        >>> record = Record("1", {"image": "a.png"}, Path("/data"))
        >>> [ref.source.name for ref in media_refs(record, "image", "images", "image")]
        ['a.png']
    """
    for column in columns:
        value = record.fields.get(column)
        if value:
            items = value if isinstance(value, list | tuple) else [value]
            return [MediaRef(kind, media_source(record, item)) for item in items]
    return []


def interleave_numbered(
    text: str, placeholder: re.Pattern[str], media: Mapping[int, MediaRef]
) -> tuple[Part, ...]:
    """Put medium n where the placeholder with number n stands, each time.

    Args:
        text: the question; media that it does not mention precede it.
        placeholder: a pattern whose group 1 is the number.
        media: by number; a number without a medium raises ValueError.

    Example:
        >>> two = {1: MediaRef("image", "a.png"), 2: MediaRef("image", "b.png")}
        >>> parts = interleave_numbered("Is <2> like <1>?", re.compile("<([0-9])>"), two)
        >>> [part.text if isinstance(part, Text) else part.source for part in parts]
        ['Is ', 'b.png', ' like ', 'a.png', '?']
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
