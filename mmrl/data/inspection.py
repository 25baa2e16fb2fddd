"""`mmrl data inspect PATH`: which layout it has, records as a model will see them, what fails."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mmrl import plugins
from mmrl import task as contract
from mmrl.corpus.fields import fields_of
from mmrl.corpus.layout import layout_of
from mmrl.data.samples import Samples, TableRows, Unusable, open_rows
from mmrl.errors import MediaError
from mmrl.runlog.journal import plain
from mmrl.runlog.quarantine import commonest
from mmrl.task import RewardPart, Task
from mmrl.types import Answer, MediaRef, Observation, Part, Record, Sample, Score, Text

SHOWN = 3


@dataclass(frozen=True)
class Asking(contract.Task):
    """A record as it asks itself, without any task's instruction."""

    name: ClassVar[str] = "inspect"
    summary: ClassVar[str] = ""
    parts: ClassVar[Mapping[str, RewardPart]] = {}
    metric: ClassVar[str] = ""

    def sample(self, record: Record) -> Sample:
        fields = fields_of(record)
        return Sample(record.id, self.name, (Text(str(fields["prompt"])),), fields.answer)

    def score(self, gold: Any, answer: Answer) -> Score:
        raise AssertionError("nothing is answered")

    def step(self, gold: Any, state: Any, answer: Answer) -> Observation:
        raise AssertionError("nothing is answered")

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """None: without a task there is no form for an answer."""
        return None


@dataclass
class Inspection:
    """What was found at a data path; `refused` holds ids by reason."""

    path: str
    format: str
    layout: str
    records: int
    columns: list[str]
    repeated_ids: int = 0
    looked_at: int = 0
    shown: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> str:
        """Everything as JSON."""
        refused = [{"reason": r, "count": len(ids), "ids": ids} for r, ids in self.refused.items()]
        return json.dumps(plain({**vars(self), "refused": refused}), indent=1, ensure_ascii=False)

    def lines(self) -> Iterator[str]:
        """Everything for a terminal."""
        yield f"{self.path}: {self.format}, {self.records} records, layout: {self.layout}"
        yield f"columns: {', '.join(self.columns)}"
        if self.repeated_ids:
            yield f"{self.repeated_ids} records share an id with another: they get a suffix"
        for record in self.shown:
            yield f"\nrecord {record['id']}"
            for turn in record["turns"]:
                yield f"  {turn['role']}: {' '.join(map(_said, turn['parts']))}"
            yield f"  gold: {record['gold']!r:.200}"
            if record["completion"] is not None:
                yield f"  completion: {record['completion']!r:.200}"
        bad = sum(map(len, self.refused.values()))
        yield f"\n{bad} of {self.looked_at} records looked at would be refused"
        if self.refused:
            reason, count = commonest({r: len(ids) for r, ids in self.refused.items()})
            yield f"most ({count}): {reason}"
        for reason, ids in list(self.refused.items())[:10]:
            more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
            yield f"  {', '.join(ids[:3])}{more}: {reason}"


def inspect(
    path: Path,
    task: Task | None = None,
    columns: Mapping[str, str | None] | None = None,
    roots: Sequence[Path] = (),
    limit: int = 100,
) -> Inspection:
    """Look at the first `limit` records as a run of the task would ask them, without a model.

    The media of the records that are shown are decoded, of the others only looked for.
    """
    task = task or Asking()
    rows = open_rows(task, path, columns, roots)
    first = [fields_of(rows.record(i)) for i in range(min(len(rows), SHOWN))]
    refused: dict[str, list[str]] = defaultdict(list)
    samples = Samples(task, rows, task.name, lambda name, reason: refused[reason].append(name))
    found = Inspection(
        path=str(path),
        format=rows.table.format if isinstance(rows, TableRows) else f"{task.name}'s own files",
        layout=", ".join(Counter(layout_of(fields) for fields in first)) or "none",
        records=len(rows),
        columns=list(dict.fromkeys(name for fields in first for name in fields)),
        repeated_ids=samples.repeated,
        looked_at=min(len(rows), limit),
    )
    for index in range(found.looked_at):
        try:
            sample = samples[index]
        except Unusable:
            continue
        if len(found.shown) < SHOWN:
            try:
                found.shown.append(_shown(task, sample))
            except (MediaError, ValueError) as error:
                refused[f"{type(error).__name__}: {error}"].append(sample.id)
    found.refused = dict(refused)
    return found


def _shown(task: Task, sample: Sample) -> dict[str, Any]:
    parts = [_part(part) for part in sample.parts]
    turns: list[dict[str, Any]] = []
    if sample.system:
        turns.append({"role": "system", "parts": [sample.system]})
    for role, count in sample.history:
        turns.append({"role": role, "parts": parts[:count]})
        parts = parts[count:]
    turns.append({"role": "user", "parts": parts})
    try:
        completion = task.completion(sample, Answer(""))
    except (IndexError, AssertionError):
        completion = None  # written from where things lie in the picture
    return {"id": sample.id, "turns": turns, "gold": sample.gold, "completion": completion}


def _part(part: Part) -> str | dict[str, Any]:
    if isinstance(part, Text):
        return part.text
    media = plugins.load("modality", part.kind).decode(part)
    return {
        "kind": part.kind,
        "source": _source(part),
        "shape": list(media.array.shape),
        "options": dict(part.options),
    }


def _source(ref: MediaRef) -> str:
    if isinstance(ref.source, tuple):
        return f"{len(ref.source)} frames"
    return f"{len(ref.source)} bytes" if isinstance(ref.source, bytes) else str(ref.source)


def _said(part: str | Mapping[str, Any]) -> str:
    if isinstance(part, str):
        return part
    shape = " x ".join(map(str, part["shape"]))
    return f"[{part['kind']} {shape}: {part['source']}]"
