"""Rows -> records with their media; a row that is no record is accounted for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from mmrl.recipes.contamination import FINGERPRINTS, OverlapIndex, fingerprint
from mmrl.recipes.difficulty import PassRates
from mmrl.recipes.medium import LeftOut, Medium
from mmrl.recipes.store import MediaStore
from mmrl.task import Task
from mmrl.types import Record

LEFT_OUT = "left_out.jsonl"
_REASON_CHARACTERS = 160


class RecordWriter:
    """Writes `SPLIT.jsonl` for every split; a context manager.

    A row that `task` would refuse, or whose medium is missing, goes to `left_out.jsonl` with the
    reason. `question` names the columns by which records are compared.
    """

    def __init__(
        self,
        out: Path,
        store: MediaStore,
        task: Task,
        question: tuple[str, ...],
        rates: PassRates | None,
    ) -> None:
        self.records: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.index = OverlapIndex()
        self._out, self._store, self._task = out, store, task
        self._question, self._rates = question, rates
        self._ids: dict[str, set[str]] = {}
        self.files: dict[str, IO[str]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._file(LEFT_OUT)
        self._file(FINGERPRINTS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def write(self, split: str, convert: Callable[[], Mapping[str, Any]], position: int) -> None:
        """Write one row, or why it is no record; `position` names a row without an id."""
        placed, id = len(self._store.hashes), ""
        media: set[str] = set()
        try:
            found = dict(convert())
            id = self._unique(split, str(found["id"]))
            fields = self._resolve(found, media) | {"id": id}
            rate = self._rates.take(id) if self._rates else None
            if rate is not None:
                fields["pass_rate"] = rate
            self._task.ask(Record(id, fields, self._out))
            line = json.dumps(fields, ensure_ascii=False, allow_nan=False)
        except (LeftOut, ValueError, LookupError, TypeError, AttributeError) as error:
            self._store.withdraw(placed)
            self._leave_out(split, id or f"row {position}", error)
            return
        self._ids[split].add(id)
        self.records[split] += 1
        print(line, file=self._file(f"{split}.jsonl"))
        hashes = [self._store.hashes[name] for name in media]
        seen = fingerprint(id, split, fields, self._question, hashes)
        self.index.enter(seen)
        print(json.dumps(seen.to_json()), file=self._file(FINGERPRINTS))

    def _resolve(self, value: Any, media: set[str]) -> Any:
        """Replace every medium by its path beside the records."""
        if isinstance(value, Medium):
            name = self._store.place(value)
            media.add(name)
            return name
        if isinstance(value, dict):
            return {key: self._resolve(item, media) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._resolve(item, media) for item in value]
        return value

    def _unique(self, split: str, id: str) -> str:
        """An id that occurs again gets `~2`, `~3` ... behind it."""
        known = self._ids.setdefault(split, set())
        if not id.strip():
            raise LeftOut("empty id")
        candidate, number = id, 1
        while candidate in known:
            number += 1
            candidate = f"{id}~{number}"
        return candidate

    def _leave_out(self, split: str, id: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, LeftOut) else f"{type(error).__name__}: {error}"
        reason = " ".join(reason.split())[:_REASON_CHARACTERS]
        self.left_out[reason] += 1
        row = {"split": split, "id": id, "reason": reason}
        print(json.dumps(row, ensure_ascii=False), file=self._file(LEFT_OUT))

    def _file(self, name: str) -> IO[str]:
        if name not in self.files:
            file = (self._out / name).open("w", encoding="utf-8")
            self.files[name] = self._stack.enter_context(file)
        return self.files[name]
