"""Completions of earlier runs and evaluations by the id of their record, for pairs and mixtures.

A file holds a line a group (a run's `rollouts.jsonl`), a record (an evaluation's `answers.jsonl`,
or the file that `mmrl eval --out` writes beside that folder) or an answer (`mmrl score` reads and
writes such).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmrl.corpus.json_rows import json_lines
from mmrl.corpus.ranked import Ranked, merged
from mmrl.errors import DataError
from mmrl.types import Reference, Sample


class StoredCompletions:
    """What a file has of each record; `cut` counts answers that were cut short and are left out.

    Of a run's own rollouts, those after the first of `steps` up to the last are taken.
    """

    def __init__(self, path: Path, steps: tuple[int, int] | None = None) -> None:
        file = _file(path)
        self.cut = 0
        found: dict[str, list[tuple[str, float | None]]] = defaultdict(list)
        for number, row in json_lines(file):
            if steps is not None and not steps[0] < row["step"] <= steps[1]:
                continue
            for name, text, reward, whole in _answers(row, f"{file}:{number}"):
                self.cut += not whole
                if whole:
                    found[name].append((text, reward))
        if not found:
            raise DataError(f"data.stored: {file} holds no completions")
        self._by_id = {name: merged(tuple(pairs)) for name, pairs in found.items()}

    def __len__(self) -> int:
        return len(self._by_id)

    def of(self, sample: Sample) -> Sample:
        """The sample with the completions that are stored of it, behind those of its own record."""
        own = sample.reference or Reference()
        more: Ranked = self._by_id.get(sample.id, ())
        return replace(sample, reference=replace(own, ranked=merged(own.ranked, more)))


def _file(path: Path) -> Path:
    """The file of completions in a run's folder or an evaluation's, or the path itself."""
    for name in ("rollouts.jsonl", "answers.jsonl"):
        if (path / name).is_file():
            return path / name
    if not path.is_file():
        raise DataError(f"data.stored: no file of completions at {path}")
    return path


def _answers(row: Mapping[str, Any], where: str) -> Iterator[tuple[str, str, float | None, bool]]:
    """Each answer of a line: its record's id, its text, what it earned, and whether it ended."""
    try:
        name = str(row["id"])
        if "responses" in row:
            for each in row["responses"]:
                yield name, each["text"], each.get("reward"), each.get("finish") != "length"
        elif "texts" in row:
            cut = row.get("truncated") or [False] * len(row["texts"])
            for text, short in zip(row["texts"], cut, strict=True):
                yield name, text, None, not short
        else:
            yield name, row["answer"], row.get("reward"), True
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{where}: a line has an id, and an answer, texts or responses with their rewards"
        ) from None
