"""The samples of a data path: records are read and asked when they are wanted, and not kept.

What is held of a record is eight bytes of its id. The first records are asked at once, so that a
mistake in the data or the configuration is told before a model is loaded; the rest when they are
drawn. A record that cannot be asked is rejected, once, with the reason.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Protocol, overload

import numpy as np

from mmrl.corpus.table import Table, open_table
from mmrl.data.columns import carried_columns
from mmrl.errors import DataError
from mmrl.records import record_of
from mmrl.task import Task
from mmrl.types import Ints, MediaRef, Record, Sample

Reject = Callable[[str, str], None]
"""Called with (sample id, reason) for every record that cannot be asked."""

CHECKED = 1000
"""Records that are asked before anything else happens."""
KEPT = 64
"""Samples that were drawn last: what is looked at ahead is drawn soon."""


class Unusable(ValueError):
    """A record that cannot be asked, or not whole; it has been rejected."""


class Rows(Protocol):
    """Records by number, with the ids of all of them."""

    def __len__(self) -> int: ...

    def record(self, number: int) -> Record: ...

    def names(self) -> Iterator[str]: ...


@dataclasses.dataclass(frozen=True)
class TableRows:
    """The records of a table."""

    table: Table
    columns: Mapping[str, str | None]
    roots: Sequence[Path]

    def __len__(self) -> int:
        return len(self.table)

    def record(self, number: int) -> Record:
        return record_of(self.table, number, self.columns, self.roots)

    def names(self) -> Iterator[str]:
        return self.table.names()


@dataclasses.dataclass(frozen=True)
class ListedRows:
    """Records of a form that one task only reads: they are held."""

    records: Sequence[Record]

    def __len__(self) -> int:
        return len(self.records)

    def record(self, number: int) -> Record:
        return self.records[number]

    def names(self) -> Iterator[str]:
        return (record.id for record in self.records)


def open_rows(
    task: Task,
    path: Path,
    columns: Mapping[str, str | None] | None = None,
    roots: Sequence[Path] = (),
) -> Rows:
    """The records of a path, by the task's own form or as any task reads them.

    Raises DataError for a name in `columns` whose column the data do not have.
    """
    if task.own_records(path) is not None:
        return ListedRows(list(task.records(path, columns, roots)))
    table = open_table(path)
    refuse_unknown(path, table, columns or {})
    return TableRows(table, columns or {}, roots)


def refuse_unknown(path: Path, table: Table, columns: Mapping[str, str | None]) -> None:
    """Raise DataError where none of the first rows has a column that is named."""
    rows = [table.row(i) for i in range(min(len(table), 8))]
    known = list(dict.fromkeys(name for row in rows for name in row))
    for name, column in columns.items():
        if column is not None and known and not {column, column.partition(".")[0]} & set(known):
            raise DataError(
                f"data.columns.{name}: {path} has no column '{column}'; it has: "
                f"{', '.join(known):.200}"
            )


class Samples(Sequence[Sample]):
    """The usable records of a source, in order, as samples of `key`.

    `with_more` adds to a sample what is known of its record elsewhere. `ids_digest` is that of all
    records' ids in order, which are read for the index anyway.

    `check` may raise ValueError for a sample that a run cannot use. Ids that several records share
    get a suffix, from the second on; `repeated` counts them.
    """

    def __init__(
        self,
        task: Task,
        rows: Rows,
        key: str,
        reject: Reject,
        *,
        limit: int | None = None,
        check: Callable[[Sample], None] | None = None,
        media: bool = True,
        with_more: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self._task, self._rows, self.key, self._reject = task, rows, key, reject
        self._check, self._media, self._with_more = check, media, with_more
        self._places: Ints = np.arange(min(len(rows), limit or len(rows)))
        self._suffixes, self._hashes, self.ids_digest = _distinct(rows, len(self._places))
        self.repeated = len(self._suffixes)
        self._prefix = ""
        self._kept: OrderedDict[int, Sample] = OrderedDict()
        self._rejected: set[int] = set()
        self.reasons: Counter[str] = Counter()
        self.looked_at = 0

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Samples: ...

    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return self.at(self._places[index])
        place = int(self._places[index])
        sample = self._kept.get(place)
        if sample is None:
            sample = self._asked(place)
            self._kept[place] = sample
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return sample

    def at(self, places: Ints) -> Samples:
        """The samples of the rows with these numbers [n]."""
        part = self._alike()
        part._places = places
        return part

    def usable(self, count: int | None = None) -> Iterator[Sample]:
        """The samples among the first `count` records, in order; the others are rejected."""
        for index in range(len(self) if count is None else min(count, len(self))):
            try:
                yield self[index]
            except Unusable:
                continue

    def find(self, sample_id: str) -> Sample | None:
        """The sample with an id; None without one."""
        if not sample_id.startswith(self._prefix):
            return None
        own = sample_id.removeprefix(self._prefix)
        for index in np.flatnonzero(self.hashes == hash(own)):
            sample = self[int(index)]
            if sample.id == sample_id:
                return sample
        return None

    @property
    def places(self) -> Ints:
        """The numbers of the samples' rows [n]."""
        return self._places

    @property
    def hashes(self) -> Ints:
        """A number for the id of every sample [n]; equal ids have equal numbers in one process."""
        return self._hashes[self._places]

    def under(self, prefix: str) -> Samples:
        """The same samples with `prefix` before their ids."""
        other = self._alike()
        other._prefix = prefix
        return other

    def look_through(self, count: int | None = CHECKED) -> Samples:
        """The samples without those of the first `count` records (None: of all) that are no use."""
        looked = len(self) if count is None else min(count, len(self))
        for _ in self.usable(looked):
            pass
        other = self._alike()
        other.looked_at = looked
        bad = np.isin(self._places[:looked], list(self._rejected))
        other._places = np.concatenate([self._places[:looked][~bad], self._places[looked:]])
        return other

    def _alike(self) -> Samples:
        other = object.__new__(Samples)
        other.__dict__.update(self.__dict__)
        other._kept = OrderedDict()
        return other

    def _asked(self, place: int) -> Sample:
        record = self._rows.record(place)
        if place in self._suffixes:
            record = replace(record, id=record.id + self._suffixes[place])
        try:
            sample = replace(self._task.ask(record), task=self.key)
            sample = replace(sample, meta={**carried_columns(record.fields), **sample.meta})
            sample = self._with_more(sample) if self._with_more else sample
            if self._media:
                _refuse_absent(sample)
            if self._check is not None:
                self._check(sample)
        except (ValueError, KeyError, TypeError) as error:
            if place not in self._rejected:
                self._rejected.add(place)
                reason = f"{type(error).__name__}: {error}"
                self.reasons[reason] += 1
                self._reject(self._prefix + record.id, reason)
            raise Unusable(str(error)) from None
        return replace(sample, id=self._prefix + record.id)


def load_samples(
    task: Task,
    path: Path,
    key: str,
    reject: Reject,
    limit: int | None = None,
    columns: Mapping[str, str | None] | None = None,
    roots: Sequence[Path] = (),
    *,
    looked_at: int | None = None,
    check: Callable[[Sample], None] | None = None,
    media: bool = True,
    with_more: Callable[[Sample], Sample] | None = None,
    keep: Callable[[Rows, int], Ints] | None = None,
) -> Samples:
    """The samples of a path; what cannot be asked goes to `reject`, with its reason.

    `key` replaces the task's name in the samples, so that scores find their source's settings.
    What algorithms read of a record stands in its sample's meta. `looked_at` records are asked at
    once, by default all. `media` False: nobody looks at media, which may be gone. `keep` says the
    numbers [n] of the rows that are taken. Raises DataError if no sample is left.
    """
    rows = open_rows(task, path, columns, roots)
    samples = Samples(
        task, rows, key, reject, limit=limit, check=check, media=media, with_more=with_more
    )
    if keep is not None:
        samples = samples.at(keep(rows, len(samples)))
    usable = samples.look_through(looked_at)
    if not len(rows):
        raise DataError(f"{path}: it holds no records")
    if not len(usable):
        why = "".join(f": {reason} ({n} records)" for reason, n in samples.reasons.most_common(1))
        raise DataError(f"{path}: no usable record for task '{key}'{why}; see quarantine.jsonl")
    return usable


def _distinct(rows: Rows, count: int) -> tuple[dict[int, str], Ints, str]:
    """Suffixes for records whose id others have before them; a hash of every id, and one of all."""
    told = sha256()

    def hashed(name: str) -> int:
        told.update(f"{name}\n".encode())
        return hash(name)

    hashes = np.fromiter(map(hashed, itertools.islice(rows.names(), count)), np.int64, count)
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    if len(first) == count:
        return {}, hashes, told.hexdigest()
    repeated = np.isin(hashes, hashes[first[counts > 1]])
    suffixes: dict[int, str] = {}
    seen: Counter[int] = Counter()
    for place in map(int, np.flatnonzero(repeated)):
        seen[int(hashes[place])] += 1
        if seen[int(hashes[place])] > 1:
            suffixes[place] = f"#{seen[int(hashes[place])]}"
    for place, suffix in suffixes.items():
        hashes[place] = hash(rows.record(place).id + suffix)
    return suffixes, hashes, told.hexdigest()


def _refuse_absent(sample: Sample) -> None:
    """Raise ValueError for a medium whose file is not there."""
    for part in sample.parts:
        if isinstance(part, MediaRef):
            for each in part.source if isinstance(part.source, tuple) else (part.source,):
                if isinstance(each, Path) and not each.exists():
                    raise ValueError(f"no {part.kind} at {each}")
