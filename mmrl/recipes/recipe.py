"""What a recipe declares, and the one way all of them are carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmrl.errors import UserError
from mmrl.recipes.cleaning import OVERLAP, drop_shared, find_overlap
from mmrl.recipes.difficulty import read_pass_rates
from mmrl.recipes.manifest import clear, write_manifest
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.settings import Options
from mmrl.recipes.store import MediaStore, sha256
from mmrl.recipes.writer import RecordWriter
from mmrl.scoring.tasks import load_task

DEFAULTS = Options()
OnRecord = Callable[[int, int], None]
"""Called with (records written, rows left out) after each row."""

Rows = Iterator[tuple[str, Any]]
"""(split, raw row) in a stable order."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What a data set is: `hub` is the repository to download ("" where it is on no hub).

    `layout` says what its folder then holds; "" for a recipe that makes its data itself.
    """

    name: str
    summary: str
    task: str
    license: str
    hub: str = ""
    url: str = ""
    layout: str = ""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the rows of a public data set become records of its task.

    `rows` finds the rows of a folder; `convert` makes a row's columns, `id` among them, and may
    put a `Medium` anywhere. A row it cannot use is LeftOut, ValueError, LookupError or TypeError.
    `question` names the columns that make up what is asked, `params` the task's parameters that
    the records need, `training` the splits meant for training.
    """

    about: About
    question: tuple[str, ...]
    rows: Callable[[Source], Rows]
    convert: Callable[[Any, Source], Mapping[str, Any]]
    params: Mapping[str, Any] = field(default_factory=dict)
    training: tuple[str, ...] = ("train",)

    def build(
        self,
        folder: Path | None,
        out: Path,
        *,
        seed: int = 0,
        options: Options = DEFAULTS,
        on_record: OnRecord = lambda written, left_out: None,
    ) -> dict[str, Any]:
        """Write records, media and manifest into `out` and return the manifest's facts.

        The same input gives the same bytes. A folder that lacks what `layout` says, and one
        without a single usable row, raise UserError.
        """
        about = self.about
        expected = f"{about.layout}; get it from {about.hub or about.url}"
        if folder is None:
            raise UserError(f"recipe '{about.name}' needs --in DIR, a folder with {expected}")
        source = Source(folder, expected, seed)
        out.mkdir(parents=True, exist_ok=True)
        if source.root.resolve() == out.resolve():
            raise UserError("--in and --out are the same folder")
        rates = read_pass_rates(options.difficulty) if options.difficulty else None
        clear(out)
        store = MediaStore(out, copy=options.copy)
        task = load_task(about.task, self.params)
        with RecordWriter(out, store, task, self.question, rates) as writer:
            self._write_rows(writer, source, on_record)
        facts = self._facts(seed) | self._clean(writer, source, out, store, options)
        facts["difficulty"] = rates.report(writer.records.total()) if rates else None
        write_manifest(out, facts, [*writer.files, OVERLAP], store.hashes)
        return facts

    def _write_rows(self, writer: RecordWriter, source: Source, on_record: OnRecord) -> None:
        for position, (split, raw) in enumerate(self._read(source), 1):
            writer.write(split, partial(self.convert, raw, source), position)
            on_record(writer.records.total(), writer.left_out.total())
        if not writer.records:
            common = writer.left_out.most_common(1)
            why = f"{common[0][1]} rows: {common[0][0]}" if common else "no rows"
            raise source.missing(f"usable record ({why})")

    def _clean(
        self, writer: RecordWriter, source: Source, out: Path, store: MediaStore, options: Options
    ) -> dict[str, Any]:
        """Look for overlap, drop what is to be dropped, and say what became of every row."""
        records, left_out = writer.records.copy(), writer.left_out.copy()
        overlap = find_overlap(out, writer.index, options.against)
        if options.drop != "none":
            dropped = drop_shared(out, writer.index, self.training, options.drop, store)
            for split, reasons in dropped.items():
                records[split] -= reasons.total()
                left_out += reasons
        used = {p.relative_to(source.root).as_posix(): sha256(p) for p in source.used}
        return {
            "annotations": used,
            "records": dict(records),
            "left_out": dict(left_out.most_common()),
            "skipped": dict(source.skipped.most_common()),
            **overlap,
        }

    def _read(self, source: Source) -> Rows:
        """The rows; a file that is damaged or of another form raises UserError."""
        try:
            yield from self.rows(source)
        except (LookupError, TypeError, ValueError, AttributeError, OSError) as error:
            file = next(reversed(source.used), source.root)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"{file} is not as expected ({reason:.120}): {self.about.layout}"
            ) from None

    def _facts(self, seed: int) -> dict[str, Any]:
        about = self.about
        return {
            "recipe": about.name,
            "source": {"hub": about.hub, "url": about.url, "layout": about.layout},
            "license": about.license,
            "task": about.task,
            "params": dict(self.params),
            "training": list(self.training),
            "seed": seed,
        }
