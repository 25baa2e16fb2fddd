"""A tool that looks words up in a local corpus: texts, or records with a text, below a path."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

from mmrl.environments.picture_tools import NotUsable
from mmrl.errors import ConfigError
from mmrl.rewards.retrieval import Index

FOUND, LONGEST = 3, 600
"""Passages that a search gives, and characters of each."""
MOST_QUERY = 300
KINDS = (".txt", ".md", ".jsonl")


def search(corpus: str, query: str) -> str:
    """The passages of a corpus that fit a query best, numbered from 1; raises NotUsable."""
    if not query.strip() or len(query) > MOST_QUERY:
        raise NotUsable(f"query is a text of at most {MOST_QUERY} characters")
    index = index_of(corpus)
    places = index.rank(query)[:FOUND]
    if not places:
        return "Nothing was found."
    return "\n".join(f"[{n}] {index.passages[p][:LONGEST]}" for n, p in enumerate(places, 1))


@functools.lru_cache(maxsize=4)
def index_of(corpus: str) -> Index:
    """The passages below a path: paragraphs of texts, the `text` of records, with a `title`.

    Raises ConfigError where there is nothing to search.
    """
    root = Path(corpus)
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.suffix in KINDS)
    passages = [passage for file in files for passage in _passages(file)]
    if not passages:
        raise ConfigError(f"tool_corpus: no text below '{corpus}' ({', '.join(KINDS)})")
    return Index(passages)


def _passages(file: Path) -> Iterator[str]:
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".jsonl":
        yield from (" ".join(part.split()) for part in text.split("\n\n") if part.strip())
        return
    for number, line in enumerate(text.splitlines(), 1):
        row = json.loads(line)
        said = row.get("text") if isinstance(row, dict) else None
        if not isinstance(said, str):
            raise ConfigError(f"tool_corpus: {file}, line {number}: no text")
        yield f"{row['title']}: {said}" if row.get("title") else said
