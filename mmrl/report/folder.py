"""Read a run folder as it is: files may be missing, cut off in the middle, or from elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmrl.runlog.journal import Journal, parse_line

QUARANTINE_SHOWN = 200


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Everything a report is made of; what is missing is empty.

    `rollout_lines` are the byte offset and length of each line of `rollouts.jsonl`: groups are
    many and large, so a report parses only those it shows.
    """

    path: Path
    config: Mapping[str, Any]
    config_text: str
    metrics: Sequence[Mapping[str, Any]]
    rollout_lines: Sequence[tuple[int, int]]
    quarantine: Sequence[Mapping[str, Any]]
    quarantine_counts: Mapping[str, int]
    result: Mapping[str, Any]
    evals: Mapping[str, Mapping[str, Any]]

    def rollout(self, index: int) -> dict[str, Any] | None:
        """Parse one group; None where the line is half-written."""
        offset, length = self.rollout_lines[index]
        with (self.path / "rollouts.jsonl").open("rb") as file:
            file.seek(offset)
            return parse_line(file.read(length))


def read_run(path: Path) -> RunFolder:
    """Read the folder at `path`, which must exist."""
    text, config = _config(path / "config.yaml")
    counts: Counter[str] = Counter()
    shown: list[Mapping[str, Any]] = []
    for row in Journal(path / "quarantine.jsonl").rows():
        counts[str(row.get("stage", ""))] += 1
        if len(shown) < QUARANTINE_SHOWN:
            shown.append(row)
    return RunFolder(
        path=path,
        config=config,
        config_text=text,
        metrics=_by_step(path / "metrics.jsonl"),
        rollout_lines=_lines(path / "rollouts.jsonl"),
        quarantine=shown,
        quarantine_counts=dict(counts),
        result=_object(path / "result.json"),
        evals={name: _object(path / f"eval_{name}.json") for name in ("before", "after")},
    )


def _config(path: Path) -> tuple[str, Mapping[str, Any]]:
    if not path.is_file():
        return "", {}
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        config = None
    return text, config if isinstance(config, dict) else {}


def _by_step(path: Path) -> list[Mapping[str, Any]]:
    """Order the rows by step; of a step that was written twice, the later row counts."""
    rows = {row["step"]: row for row in Journal(path).rows() if isinstance(row.get("step"), int)}
    return [rows[step] for step in sorted(rows)]


def _lines(path: Path) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    if path.is_file():
        offset = 0
        with path.open("rb") as file:
            for line in file:
                found.append((offset, len(line)))
                offset += len(line)
    return found


def _object(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
