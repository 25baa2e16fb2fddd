"""Files of answers: lines of people's own, and what `mmrl eval --out` leaves of its answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrl.corpus.json_rows import json_lines
from mmrl.errors import UserError
from mmrl.evaluate.answers import asked_of
from mmrl.types import Answer


@dataclass(frozen=True)
class Given:
    """An answer to a record; `answer` is what a verifier saw of it where that was kept."""

    id: str
    text: str
    answer: Answer | None = None

    @property
    def truncated(self) -> bool:
        return self.answer is not None and self.answer.truncated


def read_answers(path: Path, known: Set[str]) -> Iterator[Given]:
    """Every answer of a file, in order.

    It holds lines `{"id", "answer"}`; or it is an evaluation's result, its folder of answers or the
    `answers.jsonl` in it, where each answer is taken as the model gave it. An id that is not
    `known` and a line of another form raise UserError.
    """
    for where, row in _rows(path):
        for given in _given(row, where):
            if given.id not in known:
                raise UserError(f"{where}: no record has the id '{given.id}'")
            yield given


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The lines of a file with their places; of a result those of the folder beside it."""
    kept = path / "answers.jsonl"
    if path.suffix == ".json" and path.is_file():
        kept = path.with_suffix(".answers") / "answers.jsonl"
        if not kept.is_file():
            yield from _of_result(path)
            return
    file = kept if kept.is_file() else path
    if not file.is_file():
        raise UserError(f"no file of answers at {path}")
    for number, row in json_lines(file):
        yield f"{file}:{number}", row


def _of_result(path: Path) -> Iterator[tuple[str, Any]]:
    """The texts in an evaluation's result, whose folder is gone."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["answers"]
        for number, row in enumerate(rows, 1):
            yield f"{path}: answer {number}", {"id": row["id"], "answer": row["text"]}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is no result of `mmrl eval`: it has no answers") from None


def _given(row: Any, where: str) -> Iterator[Given]:
    if isinstance(row, Mapping) and "texts" in row and "question" in row:
        asked = asked_of(row)
        for text, answer in zip(asked.texts, asked.answers(), strict=True):
            yield Given(asked.id, text, answer)
        return
    try:
        name, text = str(row["id"]), row["answer"]
    except (KeyError, TypeError):
        raise UserError(f'{where}: a line is {{"id": ..., "answer": ...}}') from None
    if not isinstance(text, str):
        raise UserError(f"{where}: the answer is no text: {text!r:.40}")
    yield Given(name, text)
