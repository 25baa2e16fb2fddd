"""Text to SQL: a query is right if it gives what the gold query gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import file_source
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.parsed import Parsed, ok
from mmrl.rewards.sql import (
    Compare,
    Database,
    Result,
    SqlLimits,
    is_ordered,
    run_query,
    same_result,
    schema_of,
    shared_ngrams,
    shared_reads,
)
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, Record, Sample, Score, Text

_FOLDERS = ("database", "databases", "dev_databases", "train_databases", "test_database")
_GOLD_SECONDS = 20.0


@dataclass(frozen=True)
class Gold:
    """The gold query and its database."""

    sql: str
    database: Database


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads Spider and BIRD records with their database files, or `database_sql` scripts.

    `compare` bird is BIRD's evaluation: sets of rows, and two empty results agree. strict refuses
    golds without rows, as they say nothing.
    """

    compare: Compare = "strict"
    think: Think = "required"
    seconds: float = 2.0
    max_rows: int = 10_000

    name: ClassVar[str] = "text_to_sql"
    summary: ClassVar[str] = "answer a question with one SQL query, judged by its rows"
    parts: ClassVar[dict[str, RewardPart]] = {
        "execution": RewardPart(0.0, 1.0),
        "runs": RewardPart(0.0, 1.0, 0.0),
        "schema": RewardPart(0.0, 1.0, 0.0),
        "ngrams": RewardPart(0.0, 1.0, 0.0),
        "format": RewardPart(0.0, 1.0, 0.1),
    }
    metric: ClassVar[str] = "execution_accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a record; a gold query that fails, or in strict gives no rows, raises ValueError."""
        fields = record.fields
        sql = str(fields.get("query") or fields.get("SQL") or "").strip().rstrip(";")
        question = str(fields.get("question") or "").strip()
        if not sql or not question:
            raise ValueError("a record needs a question and a gold query")
        gold = Gold(sql, _database(record))
        if not self._run_gold(gold).rows and self.compare == "strict":
            raise ValueError("the gold query gives no rows: nothing to compare")
        hint = f"\nHint: {fields['evidence']}" if fields.get("evidence") else ""
        grammar = self._grammar()
        ask = (
            f"{schema_of(gold.database)}\n\nQuestion: {question}{hint}\n\n{grammar.instruction()} "
            "The answer is one SQLite SELECT statement."
        )
        meta = {k: str(fields[k]) for k in ("db_id", "difficulty") if fields.get(k)}
        return Sample(
            record.id, self.name, (Text(ask),), gold, target=grammar.write(sql), meta=meta
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Run the query next to the gold's and compare; partial terms are reported beside."""
        region = self._grammar().parse(answer)
        query = region.answer.then(_unfence)
        result = query.then(lambda sql: run_query(gold.database, sql, self._limits(self.seconds)))
        expected = self._run_gold(gold)
        if not expected.rows and self.compare == "strict":
            raise ValueError("the gold query gives no rows: nothing to compare")
        if query.value is None or result.value is None:
            parts = dict.fromkeys(self.parts, 0.0)
            return Score(parts, 0.0, result.status, result.reason)
        right = same_result(result.value, expected, is_ordered(gold.sql), self.compare)
        parts = {
            "execution": float(right),
            "runs": 1.0,
            "schema": shared_reads(result.value, expected),
            "ngrams": shared_ngrams(query.value, gold.sql),
            "format": float(region.well_formed),
        }
        return Score(parts, float(right))

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Accuracy by BIRD's difficulty, where records have one."""
        rated = [(v, m) for v, m in zip(values, metas, strict=True) if "difficulty" in m]
        return mean_by("difficulty", [v for v, _ in rated], [m for _, m in rated])

    def _grammar(self) -> TagAnswer:
        return TagAnswer(self.think)

    def _limits(self, seconds: float) -> SqlLimits:
        return SqlLimits(seconds, self.max_rows)

    def _run_gold(self, gold: Gold) -> Result:
        result = _run_cached(gold, self._limits(_GOLD_SECONDS))
        if result.value is None:
            raise ValueError(f"gold query: {result.reason}")
        return result.value


@lru_cache(maxsize=256)
def _run_cached(gold: Gold, limits: SqlLimits) -> Parsed[Result]:
    return run_query(gold.database, gold.sql, limits)


def _unfence(text: str) -> Parsed[str]:
    if text.startswith("```") and text.endswith("```") and len(text) > 6:
        text = text[3:-3].removeprefix("sqlite").removeprefix("sql")
    return ok(text.strip())


def _database(record: Record) -> Database:
    script = record.fields.get("database_sql")
    if script:
        return Database(script=str(script))
    name = str(record.fields["db_id"])
    files = [file_source(record, f"{f}/{name}/{name}.sqlite") for f in _FOLDERS]
    for file in files:
        if isinstance(file, Path) and file.is_file():
            return Database(file)
    raise ValueError(f"no {name}.sqlite under {', '.join(_FOLDERS)} beside the records")
