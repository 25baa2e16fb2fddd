"""What every judge does, wherever its model is: questions -> verdicts or outages, with a count."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mmrl.scoring.judges.question import Question, Verdict


@dataclass(frozen=True, slots=True)
class Outage:
    """Why a judge came to no verdict."""

    reason: str


@dataclass
class Usage:
    """What a judge was asked and what it cost, counted from many threads."""

    counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, **more: int) -> None:
        """Add to the counts by name."""
        with self._lock:
            self.counts.update(more)


class AsksModel(Protocol):
    """Somewhere a judge's model is."""

    def ask(self, questions: Sequence[Question], usage: Usage) -> list[Verdict | Outage]:
        """A verdict or an outage for each question, in order."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...
