"""The list of what a run left out and why: nothing is dropped silently."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from mmrl.runlog.journal import Journal


class Quarantine:
    """Writes `quarantine.jsonl`, one line per sample or trajectory left out, and counts them."""

    def __init__(self, run: Path) -> None:
        self._journal = Journal(run / "quarantine.jsonl")
        self._load()

    @property
    def counts(self) -> dict[str, int]:
        """Number of entries by stage."""
        return dict(self._counts)

    def add(self, sample: str, stage: str, reason: str, *, step: int = 0, task: str = "") -> None:
        """Record that `stage` left out `sample`; the same entry of the same step counts once."""
        entry = (step, sample, stage, reason)
        if entry in self._seen:
            return
        self._seen.add(entry)
        self._counts[stage] += 1
        self._reasons[reason] += 1
        row = {"step": step, "id": sample, "task": task, "stage": stage, "reason": reason}
        self._journal.append([row])

    def line(self) -> str:
        """How much was left out and the commonest reason for it, "" if nothing was."""
        total = self._counts.total()
        if not total:
            return ""
        reason, count = commonest(self._reasons)
        return (
            f"left out {total} in all ({', '.join(f'{n} {s}' for s, n in self._counts.items())}), "
            f"{count} of them: {reason}; see quarantine.jsonl"
        )

    def metrics(self) -> dict[str, float]:
        """Totals so far under flat metric names, `quarantine/total` and `quarantine/<stage>`."""
        by_stage = {f"quarantine/{stage}": float(n) for stage, n in self._counts.items()}
        return {"quarantine/total": float(self._counts.total()), **by_stage}

    def truncate_to_step(self, step: int) -> None:
        """Forget the entries of later steps, before a run resumes from `step`."""
        self._journal.truncate_to_step(step)
        self._load()

    def _load(self) -> None:
        self._seen: set[tuple[int, str, str, str]] = set()
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        for row in self._journal.rows():
            stage = str(row.get("stage", ""))
            self._seen.add((row.get("step", 0), row.get("id", ""), stage, row.get("reason", "")))
            self._counts[stage] += 1
            self._reasons[row.get("reason", "")] += 1


_OWN = re.compile(r"'[^']*'|\"[^\"]*\"|\S*/\S*|\S*\d\S*")


def commonest(reasons: Mapping[str, int]) -> tuple[str, int]:
    """The reason that most have, one of its wordings, and how many have it.

    Reasons that differ in names, paths and numbers only are one.
    """
    kinds: Counter[str] = Counter()
    wordings: dict[str, str] = {}
    for reason, count in reasons.items():
        kind = _OWN.sub("*", reason)
        kinds[kind] += count
        wordings.setdefault(kind, reason)
    ((kind, count),) = kinds.most_common(1)
    return wordings[kind], count
