"""The answers of an evaluation, kept as they come: a killed one goes on and asks none twice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmrl.errors import UserError
from mmrl.frame import Frame, Space
from mmrl.runlog.journal import Journal, plain
from mmrl.types import Answer, MediaRef, Sample, Text


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of a record: its answers and what scoring needs of its prompt, or `unreadable`.

    `question` is the fingerprint of what was asked. `media` describe what was seen, for the page.
    `turns`, `outcomes`, `screens` and `failures` (of an environment, "" where there was none) are
    those of episodes, empty where no answer is one; `verdicts` the chances that a verifier gives
    the answers, empty where none was asked; `followed` what the policy said when it was asked about
    them.
    """

    id: str
    question: str
    texts: tuple[str, ...] = ()
    truncated: tuple[bool, ...] = ()
    lengths: tuple[int, ...] = ()
    turns: tuple[tuple[str, ...], ...] = ()
    outcomes: tuple[float | None, ...] = ()
    frames: tuple[Frame, ...] = ()
    space: Space = "processed_pixels"
    opening: str = ""
    media: tuple[Mapping[str, Any], ...] = ()
    unreadable: str = ""
    screens: tuple[tuple[Frame | None, ...], ...] = ()
    verdicts: tuple[float, ...] = ()
    followed: tuple[str | None, ...] = ()
    failures: tuple[str, ...] = ()

    def answers(self) -> list[Answer]:
        """What a verifier sees."""
        turns = self.turns or ((),) * len(self.texts)
        outcomes = self.outcomes or (None,) * len(self.texts)
        screens = self.screens or ((),) * len(self.texts)
        followed = self.followed or (None,) * len(self.texts)
        plain = [
            Answer(text, cut, self.frames, self.space, outcome, said, self.opening, seen)
            for text, cut, outcome, said, seen in zip(
                self.texts, self.truncated, outcomes, turns, screens, strict=True
            )
        ]
        return [replace(answer, followed=f) for answer, f in zip(plain, followed, strict=True)]


class Answers:
    """The answers of one way of asking: in memory, and in a folder if there is one.

    The folder holds `asking.json` and `answers.jsonl`, a line a record. A record whose question
    has changed since is not known any more, so that new data or other prompts are asked; how an
    answer is scored is no part of the question.
    """

    def __init__(self, folder: Path | None = None, asking: Mapping[str, Any] | None = None) -> None:
        self._known: dict[str, Asked] = {}
        self._journal = None
        if folder is None:
            return
        _same_asking(folder / "asking.json", plain(asking or {}))
        self._journal = Journal(folder / "answers.jsonl")
        for row in self._journal.rows():
            asked = asked_of(row)
            self._known[asked.id] = asked

    def add(self, rows: Sequence[Asked]) -> None:
        """Keep the rows, in one write that a kill leaves whole or undone."""
        self._known.update((row.id, row) for row in rows)
        if self._journal is not None:
            self._journal.append(asdict(row) for row in rows)

    def find(self, sample: Sample, count: int) -> Asked | None:
        """The sample's row if the same question was asked, `count` answers of it at least."""
        row = self._known.get(sample.id)
        if row is None or row.question != question_of(sample):
            return None
        if row.unreadable:
            return row
        if len(row.texts) < count:
            return None
        return replace(
            row,
            texts=row.texts[:count],
            truncated=row.truncated[:count],
            lengths=row.lengths[:count],
            turns=row.turns[:count],
            outcomes=row.outcomes[:count],
            screens=row.screens[:count],
            verdicts=row.verdicts[:count],
            followed=row.followed[:count],
            failures=row.failures[:count],
        )


def question_of(sample: Sample) -> str:
    """A fingerprint of what is asked: text, media by reference with their options, system."""
    digest = sha256()
    for piece in _pieces(sample):
        digest.update(len(piece).to_bytes(8, "big") + piece)
    return digest.hexdigest()[:16]


def _pieces(sample: Sample) -> Iterable[bytes]:
    yield (sample.system or "").encode("utf-8", "backslashreplace")
    for part in sample.parts:
        if isinstance(part, Text):
            yield part.text.encode("utf-8", "backslashreplace")
        else:
            yield from _reference(part)
    for role, count in sample.history:
        yield f"{role} says {count}".encode("utf-8", "backslashreplace")
    if sample.start is not None:
        yield f"{sample.turns} turns from {sample.start.key}".encode("utf-8", "backslashreplace")


def _reference(part: MediaRef) -> Iterable[bytes]:
    """A path counts with the size of its file, so that an exchanged picture is noticed."""
    options = json.dumps(plain(part.options), sort_keys=True)
    yield f"{part.kind} {options}".encode()
    for source in part.source if isinstance(part.source, tuple) else (part.source,):
        if isinstance(source, bytes):
            yield source
        else:
            size = source.stat().st_size if isinstance(source, Path) and source.is_file() else 0
            yield f"{source} {size}".encode("utf-8", "backslashreplace")


def _same_asking(file: Path, asking: Mapping[str, Any]) -> None:
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asking, indent=1) + "\n", encoding="utf-8")
        return
    known = json.loads(file.read_text(encoding="utf-8"))
    for name in dict.fromkeys([*known, *asking]):
        if known.get(name) != asking.get(name):
            raise UserError(
                f"{file.parent} holds answers with {name} {known.get(name)!r}, not "
                f"{asking.get(name)!r}: choose another --out, or pass --overwrite"
            )


def asked_of(row: Mapping[str, Any]) -> Asked:
    """Read a line of `answers.jsonl`."""
    frames = tuple(Frame.read(frame) for frame in row["frames"])
    screens = tuple(
        tuple(None if frame is None else Frame.read(frame) for frame in of_answer)
        for of_answer in row.get("screens", ())
    )
    known = {field.name for field in fields(Asked)}
    values = {name: _tupled(value) for name, value in row.items() if name in known}
    return Asked(**{**values, "frames": frames, "screens": screens})


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value
