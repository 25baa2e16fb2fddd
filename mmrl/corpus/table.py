"""Any data path -> one table of rows that are read by number: nothing is held but an index.

A path is a file (.jsonl, .json, .csv, .tsv, .parquet, .arrow, .tar), a glob or a folder of shards,
a folder that `datasets` saved, or `hf:owner/name[:config]@split`.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from mmrl.errors import DataError

HUB = "hf:"


class Table(Protocol):
    """Rows by number, from 0; each has a name and the folder that its media paths start from."""

    format: str
    """What kind of file it is, in a word or two."""

    def __len__(self) -> int: ...

    def row(self, number: int) -> dict[str, Any]:
        """A row's columns; raises DataError where the file does not hold one there."""
        ...

    def name(self, number: int, row: dict[str, Any]) -> str:
        """The row's id: its own, or file and line."""
        ...

    def names(self) -> Iterator[str]:
        """Every row's id in order, by reading as little as that takes."""
        ...

    def root(self, number: int) -> Path:
        """The folder that a row's media paths are relative to."""
        ...


def named(row: dict[str, Any], otherwise: str) -> str:
    """A row's own id, where it has one, as text."""
    own = row.get("id")
    return otherwise if own is None else str(own)


def open_table(path: Path) -> Table:
    """Open a data path; raises DataError where there is none, or no one knows its form."""
    text = str(path)
    if text.startswith(HUB):
        from mmrl.corpus.arrow_rows import hub

        return hub(text.removeprefix(HUB))
    tables = [_open(file) for file in shards(path)]
    return tables[0] if len(tables) == 1 else Joined(tables)


def missing(path: Path) -> str:
    """Why there can be nothing to read at a path, "" if there may be; nothing is opened."""
    if str(path).startswith(HUB):
        return ""
    if _is_glob(path):
        return "" if _glob(path) else f"no file matches {path}"
    return "" if path.exists() or _split_of(path) else f"no data file at {path}"


def shards(path: Path) -> list[Path]:
    """The files, in order of their names, that a path stands for; raises DataError without any.

    A folder is taken as a whole only where its files are the shards of one set.
    """
    if (why := missing(path)) != "":
        raise DataError(f"{why}: check data.path")
    if _is_glob(path):
        return _glob(path)
    if (found := _split_of(path)) is not None:
        return _saved(*found)
    if path.is_file():
        return [path]
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _saved(path, None)
    return _of_folder(path)


class Joined:
    """Several tables, one after the other."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables
        self._ends = list(itertools.accumulate(len(table) for table in tables))
        self.format = f"{tables[0].format}, {len(tables)} shards"

    def __len__(self) -> int:
        return self._ends[-1]

    def row(self, number: int) -> dict[str, Any]:
        table, own = self._place(number)
        return table.row(own)

    def name(self, number: int, row: dict[str, Any]) -> str:
        table, own = self._place(number)
        return table.name(own, row)

    def names(self) -> Iterator[str]:
        return itertools.chain.from_iterable(table.names() for table in self._tables)

    def root(self, number: int) -> Path:
        table, own = self._place(number)
        return table.root(own)

    def _place(self, number: int) -> tuple[Table, int]:
        shard = bisect.bisect_right(self._ends, number)
        return self._tables[shard], number - (self._ends[shard - 1] if shard else 0)


def _open(path: Path) -> Table:
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        known = ", ".join(_OPENERS)
        raise DataError(f"{path}: cannot read '{path.suffix}' files; use one of {known}")
    try:
        return opener(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _json_lines(path: Path) -> Table:
    from mmrl.corpus.json_rows import JsonLines

    return JsonLines(path)


def _json(path: Path) -> Table:
    from mmrl.corpus.json_rows import open_json

    return open_json(path)


def _delimited(path: Path) -> Table:
    from mmrl.corpus.delimited_rows import Delimited

    return Delimited(path)


def _parquet(path: Path) -> Table:
    from mmrl.corpus.parquet_rows import Parquet

    return Parquet(path)


def _arrow(path: Path) -> Table:
    from mmrl.corpus.arrow_rows import Arrow

    return Arrow(path)


def _tar(path: Path) -> Table:
    from mmrl.corpus.tar_rows import Tar

    return Tar(path)


_OPENERS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _delimited,
    ".tsv": _delimited,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".tar": _tar,
}


def _is_glob(path: Path) -> bool:
    return any(mark in str(path) for mark in "*?[") and not path.exists()


def _glob(path: Path) -> list[Path]:
    fixed = list(itertools.takewhile(lambda part: not set(part) & set("*?["), path.parts))
    rest = str(Path(*path.parts[len(fixed) :]))
    return sorted(p for p in Path(*fixed).glob(rest) if p.is_file())


def _split_of(path: Path) -> tuple[Path, str] | None:
    """A folder that `datasets` saved and the split behind its `@`."""
    text, found, split = str(path).rpartition("@")
    folder = Path(text)
    return (folder, split) if found and (folder / "dataset_dict.json").is_file() else None


def _saved(folder: Path, split: str | None) -> list[Path]:
    """The files of a data set that `datasets` saved, or of one of its splits."""
    from mmrl.corpus.arrow_rows import saved_files

    return saved_files(folder, split)


_SHARD_NUMBER = re.compile(r"[-_.]?(?:\d+(?:[-_]of[-_]\d+)?)(?:-[0-9a-f]{6,})?$")


def _of_folder(path: Path) -> list[Path]:
    """The shards in a folder, or in its `data` folder."""
    for folder in (path, path / "data"):
        if not folder.is_dir():
            continue
        files = sorted(f for f in folder.iterdir() if f.suffix.lower() in _OPENERS and f.is_file())
        sets = {(f.suffix.lower(), _SHARD_NUMBER.sub("", f.stem)) for f in files}
        if len(sets) > 1:
            raise DataError(
                f"{folder} holds several sets ({', '.join(sorted(n + s for s, n in sets))}): name "
                f"one, such as {folder}/{files[0].name}, or a glob"
            )
        if files:
            return files
    raise DataError(f"no data file in {path}: it holds none of {', '.join(_OPENERS)}")
