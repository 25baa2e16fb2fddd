"""The table of docs/answers.md, both ways round, and what must not become equal."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from typing import Any

import pytest

from mmrl.rewards.expressions import Expression, parse_expression
from mmrl.rewards.math import check_gold, same_value
from tests.rewards.answers_table import EQUAL, REFUSED, UNEQUAL


def taken(text: str) -> Expression:
    parsed = parse_expression(text)
    assert parsed.value is not None, (text, parsed.reason)
    check_gold(parsed.value)
    return parsed.value


@pytest.mark.parametrize("spellings", [row for _, row in EQUAL], ids=[name for name, _ in EQUAL])
def test_every_spelling_is_a_gold_and_earns_under_the_first_and_the_first_under_it(
    spellings: tuple[str, ...],
) -> None:
    first = taken(spellings[0])
    for text in spellings:
        read = taken(text)
        assert same_value(read, read), text
        assert same_value(first, read), (spellings[0], text)
        assert same_value(read, first), (text, spellings[0])


@pytest.mark.parametrize(("one", "other"), [row[1:] for row in UNEQUAL])
def test_near_misses_are_unequal_both_ways(one: str, other: str) -> None:
    for gold, answer in ((one, other), (other, one)):
        read, said = parse_expression(gold).value, parse_expression(answer).value
        if read is None or said is None:
            continue
        try:
            check_gold(read)
        except ValueError:
            continue
        assert not same_value(read, said), (gold, answer)


def test_values_with_and_without_their_names_are_equal_both_ways() -> None:
    named, bare = taken("x=1, y=2"), taken("1, 2")
    assert same_value(named, bare) and same_value(bare, named)


def test_rows_are_unequal_to_their_neighbours() -> None:
    """Rows mean different things, but for those that are one number."""
    firsts = [taken(row[0]) for _, row in EQUAL]
    for at, (one, other) in enumerate(itertools.pairwise(firsts)):
        if one.number is None or other.number is None or one.number != other.number:
            assert not same_value(one, other), EQUAL[at][0]


@pytest.mark.parametrize("text", [text for _, text in REFUSED])
def test_what_is_no_one_value_is_no_gold(text: str) -> None:
    parsed = parse_expression(text)
    if parsed.value is not None:
        with pytest.raises(ValueError, match="gold"):
            check_gold(parsed.value)


def test_the_document_shows_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(str(root / "tools"))
    tool: Any = importlib.import_module("answers_table")
    document = (root / "docs" / "answers.md").read_text(encoding="utf-8")
    assert tool.put(document) == document, "run tools/answers_table.py --write docs/answers.md"
