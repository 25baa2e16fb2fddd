from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from mmrl.rewards.sql import (
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

SCRIPT = "CREATE TABLE t (a INTEGER, b TEXT); INSERT INTO t VALUES (1,'x'),(2,'y'),(2,'y');"
MEMORY = Database(script=SCRIPT)
FAST = SqlLimits(seconds=0.3)


@pytest.fixture
def file(tmp_path: Path) -> Database:
    path = tmp_path / "a b?c#.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(SCRIPT)
    connection.close()
    return Database(path)


def rows(sql: str, database: Database = MEMORY) -> tuple[tuple[object, ...], ...]:
    result = run_query(database, sql)
    assert result.value is not None, result.reason
    return result.value.rows


def test_selects_run_on_files_and_scripts(file: Database) -> None:
    for database in (MEMORY, file):
        assert rows("SELECT a, b FROM t WHERE a > 1", database) == ((2, "y"), (2, "y"))
        assert rows("WITH u AS (SELECT a FROM t) SELECT sum(a) FROM u;", database) == ((5,),)
        assert "CREATE TABLE t" in schema_of(database)
    assert rows("SELECT 1/3.0") == ((0.3333333333,),)
    assert rows("SELECT printf('%.*c', 100000000, 'x')") == ((None,),)
    assert rows("VALUES (NULL, x'00')") == ((None, b"\0"),)


ATTACKS = [
    "DROP TABLE t", "DELETE FROM t", "INSERT INTO t VALUES (3, 'z')", "UPDATE t SET a = 0",
    "CREATE TABLE u (a)", "CREATE TEMP TABLE u (a)", "ALTER TABLE t ADD c", "VACUUM", "REINDEX",
    "VACUUM INTO 'stolen.db'", "ATTACH 'other.db' AS o", "ATTACH ':memory:' AS o", "DETACH main",
    "PRAGMA query_only = OFF", "PRAGMA table_info(t)", "SELECT * FROM pragma_table_info('t')",
    "PRAGMA writable_schema = ON", "BEGIN", "COMMIT", "SAVEPOINT s", "ANALYZE", "EXPLAIN SELECT 1",
    "SELECT load_extension('x')", "SELECT readfile('/etc/passwd')", "SELECT writefile('x', 'y')",
    "SELECT LOAD_EXTENSION('x')", "SELECT random()", "SELECT hex(randomblob(10))",
    "SELECT hex(zeroblob(1000000000))", "SELECT fts3_tokenizer('x')",
    "SELECT 1; DROP TABLE t", "SELECT 1; SELECT 2", "", ";", "-- nothing", "/* open",
    "SELECT 1 \x00 ; DROP TABLE t", "SELECT ?", "SELECT :a", "SELECT nothing FROM t",
    "SELECT 1 FROM (" + "SELECT 1 FROM (" * 300, "SELECT " + "(" * 500 + "1" + ")" * 500,
    "SELECT " + "1," * 5000 + "1", " UNION ".join(["SELECT 1"] * 50), "SELECT '\ud800'",
    "SELECT replace(hex(a), '0', b) FROM missing",
]  # fmt: skip


@pytest.mark.parametrize("sql", ATTACKS)
def test_attacks_are_refused(sql: str, file: Database, tmp_path: Path) -> None:
    assert file.path is not None
    before = file.path.read_bytes()
    started = time.process_time()
    for database in (MEMORY, file):
        result = run_query(database, sql, FAST)
        assert (result.status, result.value) == ("malformed", None)
    assert time.process_time() - started < 2.0
    assert file.path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [file.path.name]
    assert rows("SELECT count(*) FROM t") == ((3,),)


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
        "SELECT count(*) FROM " + ", ".join(f"t AS t{i}" for i in range(20)),
        "SELECT * FROM " + ", ".join(f"t AS t{i}" for i in range(20)),
        "SELECT * FROM " + ", ".join(f"t AS t{i}" for i in range(20)) + " ORDER BY 1, 20",
        "SELECT group_concat(t1.b || t2.b) FROM " + ", ".join(f"t AS t{i}" for i in range(20)),
        "WITH RECURSIVE c(x) AS (SELECT 'a' UNION ALL SELECT x || x FROM c) SELECT max(x) FROM c",
        "SELECT sum(length(replace(hex(t0.b), '7', 'abcdefgh'))) FROM "
        + ", ".join(f"t AS t{i}" for i in range(18)),
    ],
)
def test_what_never_ends_is_stopped(sql: str) -> None:
    started = time.process_time()
    assert run_query(MEMORY, sql, FAST).status == "malformed"
    assert time.process_time() - started < 3.0


def test_a_megabyte_of_sql_is_refused_in_a_moment() -> None:
    for unit in ("(", "SELECT ", "'", "--", "/*", "a "):
        started = time.process_time()
        assert run_query(MEMORY, unit * (10**6 // len(unit))).status == "malformed"
        assert time.process_time() - started < 2.0
    started = time.process_time()
    for text in ("/*" * 500_000, "'" * 999_999, "[" * 10**6, '"' * 999_999, "- " * 500_000):
        assert not is_ordered(text)
    assert time.process_time() - started < 5.0


def test_rows_are_capped() -> None:
    many = (
        "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c LIMIT 50) SELECT * FROM c"
    )
    assert run_query(MEMORY, many, SqlLimits(rows=49)).status == "malformed"
    assert run_query(MEMORY, many, SqlLimits(rows=50)).status == "ok"


def test_a_database_that_is_none_raises(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_text("no database at all, but long enough to look like a file")
    for path in (tmp_path / "x.sqlite", tmp_path / "missing.sqlite"):
        with pytest.raises(ValueError, match="cannot open"):
            run_query(Database(path), "SELECT 1")
    assert not (tmp_path / "missing.sqlite").exists()


def result(*values: tuple[object, ...], columns: int = 1) -> Result:
    return Result(tuple(values), columns, frozenset())


def test_comparison() -> None:
    gold = result((1,), (2,), (2,))
    for other, strict, ordered, bird in (
        (result((1,), (2,), (2,)), True, True, True), (result((2,), (1,), (2,)), True, False, True),
        (result((1,), (2,)), False, False, True), (result((1,), (2,), (3,)), False, False, False),
        (result((1.0,), (2,), (2,)), True, True, True), (result(), False, False, False),
    ):  # fmt: skip
        assert same_result(other, gold, False) == strict
        assert same_result(other, gold, True) == ordered
        assert same_result(other, gold, False, "bird") == bird
    assert not same_result(result(columns=2), result(), False)


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True), ("select a from t Order\n By a", True),
        ("SELECT * FROM (SELECT a FROM t ORDER BY a)", False), ("SELECT 'order by' FROM t", False),
        ("SELECT a FROM t -- order by a", False), ("SELECT a /* order by */ FROM t", False),
        ("SELECT rank() OVER (ORDER BY a) FROM t", False), ('SELECT "order by" FROM t', False),
        ("SELECT a FROM t WHERE b = ')' ORDER BY a", True),
    ],
)  # fmt: skip
def test_order_counts_where_the_outermost_select_has_one(sql: str, ordered: bool) -> None:
    assert is_ordered(sql) == ordered


def test_partial_terms_by_hand() -> None:
    gold, same, half, none = (
        run_query(MEMORY, sql).value
        for sql in ("SELECT a, b FROM t", "SELECT b FROM t WHERE a", "SELECT a FROM t", "SELECT 1")
    )
    assert gold and same and half and none
    assert [shared_reads(r, gold) for r in (same, half, none)] == [1.0, 0.5, 0.0]
    # bigrams select-a a-from from-t against select-b b-from from-t
    assert shared_ngrams("SELECT a FROM t", "select b from t") == pytest.approx(1 / 5)
    assert shared_ngrams("", "select b from t") == 0.0
