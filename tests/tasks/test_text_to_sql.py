from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, Record, Score

SCRIPT = "CREATE TABLE t (a INTEGER, b TEXT); INSERT INTO t VALUES (1,'x'),(2,'y'),(2,'y');"


def grade(gold: str, text: str, **params: Any) -> Score:
    task = load_task("text_to_sql", params)
    fields = {"question": "q", "query": gold, "database_sql": SCRIPT}
    sample = task.sample(Record("1", fields, Path("root")))
    return task.score(sample.gold, Answer(f"<think>t</think><answer>{text}</answer>"))


@pytest.mark.parametrize(
    ("gold", "text", "expected"),
    [
        ("SELECT b FROM t", "SELECT b FROM t WHERE 1", 1), ("SELECT b FROM t", "DROP TABLE t", 0),
        ("SELECT b FROM t", "SELECT DISTINCT b FROM t", 0),
        ("SELECT b FROM t", "SELECT b FROM t ORDER BY b DESC", 1),
        ("SELECT b FROM t ORDER BY a", "SELECT b FROM t ORDER BY a DESC", 0),
        ("SELECT b FROM t ORDER BY a;", "```sql\nSELECT b FROM t ORDER BY a\n```", 1),
        ("SELECT count(*) FROM t", "SELECT 3", 1), ("SELECT avg(a) FROM t", "SELECT 5/3.0", 1),
        ("SELECT a, b FROM t", "SELECT b, a FROM t", 0), ("SELECT b FROM t", "", 0),
        ("SELECT b FROM t", "SELECT b FROM t; SELECT b FROM t", 0),
        ("SELECT b FROM t", "Here: SELECT b FROM t", 0),
    ],
)  # fmt: skip
def test_rows_decide(gold: str, text: str, expected: int) -> None:
    score = grade(gold, text)
    assert (score.parts["execution"], score.metric) == (expected, expected)


def test_bird_compares_sets() -> None:
    assert grade("SELECT b FROM t", "SELECT DISTINCT b FROM t", compare="bird").metric == 1
    # worked example 2: two empty results agree as coded; strict refuses such a gold
    empty = "SELECT a FROM t WHERE a > 9"
    assert grade(empty, "SELECT 1 WHERE 0", compare="bird").metric == 1
    with pytest.raises(ValueError, match="no rows"):
        grade(empty, "SELECT 1 WHERE 0")


def test_partial_terms_are_apart() -> None:
    parts = grade("SELECT a, b FROM t", "SELECT a FROM t").parts
    assert (parts["execution"], parts["runs"], parts["schema"], parts["format"]) == (0, 1, 0.5, 1)
    assert 0 < parts["ngrams"] < 1
    assert set(grade("SELECT a FROM t", "SELECT z FROM t").parts.values()) == {0.0}


def test_an_endless_query_is_wrong_and_quickly_so() -> None:
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT count(*) FROM c"
    started = time.process_time()
    score = grade("SELECT a FROM t", endless, seconds=0.3)
    assert score.metric == 0 and "interrupted" in score.reason
    assert time.process_time() - started < 2


def test_database_files_are_found_beside_the_records(tmp_path: Path) -> None:
    folder = tmp_path / "database" / "ships"
    folder.mkdir(parents=True)
    connection = sqlite3.connect(folder / "ships.sqlite")
    connection.executescript(SCRIPT)
    connection.close()
    task = load_task("text_to_sql")
    fields = {"question": "q", "query": "SELECT a FROM t", "db_id": "ships"}
    sample = task.sample(Record("1", fields, tmp_path))
    assert task.score(sample.gold, Answer(str(sample.target))).parts["execution"] == 1
    assert "CREATE TABLE t" in sample.parts[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "changes",
    [
        {"query": ""}, {"query": "SELECT z FROM t"}, {"query": "DROP TABLE t"}, {"question": ""},
        {"database_sql": None, "db_id": "missing"}, {"database_sql": None, "db_id": "../../x"},
    ],
)  # fmt: skip
def test_unusable_gold_raises_value_error(changes: dict[str, Any], tmp_path: Path) -> None:
    fields = {"question": "q", "query": "SELECT a FROM t", "database_sql": SCRIPT, **changes}
    with pytest.raises(ValueError):
        load_task("text_to_sql").sample(Record("1", fields, tmp_path))
