"""The raw folder of a data set, as it was downloaded."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mmrl.corpus.parquet_rows import parquet_batches
from mmrl.corpus.table import open_table
from mmrl.errors import UserError
from mmrl.recipes import json_stream, tfrecord
from mmrl.recipes.medium import Medium

_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?")
_MAX_CSV_FIELD = 1 << 24


class Source:
    """Finds and reads files below a folder; what is missing is a UserError naming the layout.

    `used` are the annotation files read so far: the manifest lists their hashes. `skipped` counts,
    by reason, what a recipe passes over because it is of another kind than its task's.
    """

    def __init__(self, root: Path, expected: str, seed: int = 0) -> None:
        self.root, self.seed = root, seed
        self._expected = expected
        self.used: dict[Path, None] = {}
        self.skipped: Counter[str] = Counter()
        if not root.is_dir():
            raise UserError(f"no folder {root}: it should hold {expected}")

    def find(self, *patterns: str) -> list[Path]:
        """Files or folders that match the first glob that matches any, in order of their names."""
        for pattern in patterns:
            found = sorted(self.root.glob(pattern))
            if found:
                return found
        return []

    def need(self, *patterns: str) -> list[Path]:
        """The same; nothing found raises UserError."""
        found = self.find(*patterns)
        if not found:
            raise self.missing(patterns[0])
        return found

    def missing(self, what: str) -> UserError:
        """The error for something that the folder lacks."""
        return UserError(f"no {what} in {self.root}: expected {self._expected}")

    def rows(self, path: Path) -> Iterator[dict[str, Any]]:
        """Read a .jsonl, .json (array), .parquet, .csv or .tsv file row by row."""
        self.used[path] = None
        match path.suffix:
            case ".csv" | ".tsv":
                yield from _table(path, "," if path.suffix == ".csv" else "\t")
            case ".json":
                for number, row in enumerate(json_stream.array(path), 1):
                    if not isinstance(row, dict):
                        raise UserError(f"{path}: element {number} is no object")
                    yield row
            case _:
                table = open_table(path)
                yield from (table.row(number) for number in range(len(table)))

    def examples(self, path: Path) -> Iterator[dict[str, list[Any]]]:
        """The examples of a TFRecord file, one at a time."""
        self.used[path] = None
        return tfrecord.examples(path)

    def array(self, path: Path, key: str) -> Iterator[Any]:
        """Elements of the array under `key` of a .json file, one at a time."""
        self.used[path] = None
        return json_stream.array(path, key)

    def members(self, path: Path) -> Iterator[tuple[str, Any]]:
        """Pairs of a .json file's object, one at a time."""
        self.used[path] = None
        return json_stream.members(path)

    def text(self, path: Path) -> str:
        """A small text file as a whole."""
        self.used[path] = None
        return path.read_text(encoding="utf-8-sig")

    def column(self, path: Path, name: str) -> Iterator[Any]:
        """One column of a .parquet file; the others, such as pictures, are not read."""
        self.used[path] = None
        for batch in parquet_batches(path, [name]):
            yield from batch.column(name).to_pylist()

    def shards(self, *folders: str) -> list[tuple[str, Path]]:
        """(split, file) of the hub's parquet files `SPLIT-00000-of-00001.parquet`, in order."""
        files = self.need(*(f"{folder}/*.parquet" for folder in folders))
        return [(split_of(file), file) for file in files]

    def medium(self, *parts: str) -> Medium:
        """The file at a path below the folder; whether it is there is seen when it is written."""
        place = PurePosixPath(*(part.lstrip("/") for part in parts))
        if ".." in place.parts:
            raise ValueError(f"media path leaves the data folder: {place}")
        return Medium(self.root / place, place)

    def locate(self, name: str, *folders: str) -> Medium:
        """The file in the first of these folders that has it; in none, it is found missing."""
        places = [self.medium(folder, name) for folder in folders]
        return next(filter(self.has, places), places[0])

    def has(self, medium: Medium) -> bool:
        """Whether the medium's file is there."""
        return isinstance(medium.content, Path) and medium.content.is_file()

    def at(self, path: Path) -> Medium:
        """A file that was found below the folder."""
        return Medium(path, PurePosixPath(path.relative_to(self.root).as_posix()))

    def held_out(self, key: str, share: float) -> bool:
        """Whether a group of records belongs to the held-out split: by hash of the key and seed.

        For sources without an official split; the same group always falls on the same side.
        """
        digest = hashlib.sha256(f"{self.seed}:{key}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64


def split_of(path: Path) -> str:
    """`train` of `train-00000-of-00002-0a1b.parquet`; other names are the split themselves."""
    shard = _SHARD.fullmatch(path.stem)
    return shard[1] if shard else path.stem


def embedded(value: Any) -> Medium:
    """A medium that a parquet row carries as bytes or as `{"bytes": ..., "path": ...}`."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes) or not content:
        raise ValueError(f"the row carries no bytes of its medium: {value!r:.60}")
    return Medium(content)


def _table(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(_MAX_CSV_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file, delimiter=delimiter), 2):
            if None in row or None in row.values():
                raise UserError(f"{path}:{number}: the row has other columns than the header")
            yield row
