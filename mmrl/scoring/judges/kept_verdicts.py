"""Verdicts by what was asked, kept for the run and for one that resumes it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from mmrl.runlog.journal import Journal
from mmrl.scoring.judges.judge_config import JudgeConfig
from mmrl.scoring.judges.question import Question, Verdict

ASIDE = {"weight", "tasks", "price_in", "price_out", "in_flight", "retries", "timeout_seconds"}
"""Options that a verdict does not depend on."""


class KeptVerdicts:
    """A judge's verdicts in memory and in a file; outages are never kept."""

    def __init__(self, config: JudgeConfig, file: Path) -> None:
        settings = config.model_dump_json(exclude=ASIDE)
        self._of = sha256(settings.encode()).hexdigest()[:16]
        self._journal = Journal(file)
        self._known = {str(row["key"]): tuple(row["verdict"]) for row in self._journal.rows()}

    def find(self, question: Question) -> Verdict | None:
        """The verdict on a question that was asked before."""
        return self._known.get(f"{self._of}/{question.key}")

    def keep(self, found: list[tuple[Question, Verdict]]) -> None:
        """Remember verdicts."""
        rows = [(f"{self._of}/{question.key}", verdict) for question, verdict in found]
        self._known.update(rows)
        self._journal.append([{"key": key, "verdict": verdict} for key, verdict in rows])
