"""Queries of a model run on sqlite3: read-only, one statement, under caps and a deadline.

The file is opened immutable and query-only, an authorizer admits reads and plain functions and
nothing else, a progress handler stops the virtual machine at the deadline, and limits bound the
statement, its values and its memory. A refused or stopped query is an outcome, not an exception.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.text import ngrams

Compare = Literal["strict", "bird"]
"""strict: the same rows as often, in the same order where the gold orders them. bird: the same
set of rows."""

_ACTIONS = {
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE,
}  # fmt: skip
# They reach outside the database, keep state, or are never the same twice.
_FORBIDDEN_FUNCTIONS = {
    "load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "random", "randomblob",
    "zeroblob", "sqlite_compileoption_get", "sqlite_offset",
}  # fmt: skip
_TICK = 2_000
_HEAP_BYTES = 256 << 20
# A quote or comment that never closes runs to the end: looking for its end again is quadratic.
_TOKEN = re.compile(
    r"--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*(?:'|\Z)|\"[^\"]*(?:\"|\Z)|`[^`]*(?:`|\Z)"
    r"|\[[^\]]*(?:\]|\Z)|[A-Za-z_]\w*|[0-9]+(?:\.[0-9]+)?|<>|[<>!=]=|\|\||\S",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """What a query may use; more makes it malformed, with the reason."""

    seconds: float = 2.0
    rows: int = 10_000
    statement_characters: int = 4_000
    value_bytes: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Database:
    """A database file, or the script that makes one, which is the data set's and trusted."""

    path: Path | None = None
    script: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """Rows of a query, floats to ten digits, and the (table, column) pairs it read."""

    rows: tuple[tuple[Any, ...], ...]
    columns: int
    reads: frozenset[tuple[str, str]]


def run_query(database: Database, sql: str, limits: SqlLimits = SqlLimits()) -> Parsed[Result]:
    """Run one SELECT; whatever else it is, or whatever goes wrong with it, is malformed.

    Raises ValueError if the database itself cannot be opened.
    """
    if len(sql) > limits.statement_characters:
        return malformed(f"query longer than {limits.statement_characters} characters")
    if next(_tokens(sql), "") not in ("select", "with", "values") or "\x00" in sql:
        return malformed("not a SELECT")
    reads: set[tuple[str, str]] = set()
    with _connect(database) as connection:
        _confine(connection, limits, reads)
        try:
            cursor = connection.execute(sql)
            rows = cursor.fetchmany(limits.rows + 1)
        except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError, MemoryError) as error:
            return malformed(f"query failed: {error}"[:200])
    if len(rows) > limits.rows:
        return malformed(f"query gives more than {limits.rows} rows")
    if cursor.description is None:
        return malformed("query gives no table")
    kept = tuple(tuple(map(_rounded, row)) for row in rows)
    return ok(Result(kept, len(cursor.description), frozenset(reads)))


def same_result(result: Result, gold: Result, ordered: bool, compare: Compare = "strict") -> bool:
    """Whether a query gave the gold's rows; columns count by position, not by name."""
    if compare == "bird":
        return set(result.rows) == set(gold.rows)
    if result.columns != gold.columns:
        return False
    if ordered:
        return result.rows == gold.rows
    return Counter(result.rows) == Counter(gold.rows)


def is_ordered(sql: str) -> bool:
    """Whether the outermost SELECT has an ORDER BY."""
    depth, previous = 0, ""
    for token in _tokens(sql):
        depth += (token == "(") - (token == ")")
        if depth == 0 and (previous, token) == ("order", "by"):
            return True
        previous = token
    return False


def shared_reads(result: Result, gold: Result) -> float:
    """Schema linking: Jaccard index of the columns that two queries read."""
    return _jaccard(set(result.reads), set(gold.reads))


def shared_ngrams(sql: str, gold: str, n: int = 2) -> float:
    """Jaccard index of the sets of n-grams of the two texts' tokens."""
    return _jaccard(set(ngrams(list(_tokens(sql)), n)), set(ngrams(list(_tokens(gold)), n)))


def schema_of(database: Database) -> str:
    """The CREATE statements of the tables and views, for a prompt."""
    with _connect(database) as connection:
        rows = connection.execute(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND type IN ('table', 'view') "
            "AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
        ).fetchall()
    return "\n".join(f"{sql};" for (sql,) in rows)


@contextmanager
def _connect(database: Database) -> Iterator[sqlite3.Connection]:
    try:
        if database.path is not None:
            uri = f"{database.path.resolve().as_uri()}?mode=ro&immutable=1"
            connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        else:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            connection.deserialize(_image(database.script))
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.Error as error:
        raise ValueError(f"cannot open the database: {error}") from None
    with closing(connection):
        yield connection


@lru_cache(maxsize=64)
def _image(script: str) -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(script)
        return connection.serialize()


def _confine(
    connection: sqlite3.Connection, limits: SqlLimits, reads: set[tuple[str, str]]
) -> None:
    connection.executescript(
        f"PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;"
        f"PRAGMA hard_heap_limit = {_HEAP_BYTES};"
    )
    for category, value in (
        (sqlite3.SQLITE_LIMIT_LENGTH, limits.value_bytes),
        (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 4 * limits.statement_characters),
        (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
        (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 100),
        (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 20),
        (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100),
    ):
        connection.setlimit(category, value)

    def admit(action: int, first: str | None, second: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_READ and first:
            reads.add((first.lower(), (second or "").lower()))
        forbidden = (
            action == sqlite3.SQLITE_FUNCTION and str(second).lower() in _FORBIDDEN_FUNCTIONS
        )
        return sqlite3.SQLITE_OK if action in _ACTIONS and not forbidden else sqlite3.SQLITE_DENY

    connection.set_authorizer(admit)
    deadline = time.monotonic() + limits.seconds
    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), _TICK)


def _tokens(sql: str) -> Iterator[str]:
    for match in _TOKEN.finditer(sql):
        token = match[0]
        if not token.startswith(("--", "/*")):
            yield token if token[0] in "'\"`" else token.lower()


def _rounded(value: Any) -> Any:
    return float(f"{value:.10g}") if isinstance(value, float) else value


def _jaccard(a: set[Any], b: set[Any]) -> float:
    return len(a & b) / len(a | b) if a and b else 0.0
