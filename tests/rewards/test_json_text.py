from __future__ import annotations

import time
from typing import Any

import pytest

from mmrl.rewards.json_text import is_number, parse_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, "x", null]}', {"a": [1, 2.5, "x", None]}),
        ("```json\n[1]\n```", [1]),
        ("``` [1] ```", [1]),
        ("[]", []),
        ("false", False),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert parse_json(text).value == value


@pytest.mark.parametrize(
    "text",
    [
        "[NaN]", "[Infinity]", "[-Infinity]", "[1e999]", '{"a": 1, "a": 2}', "[1] ok", "ok [1]",
        "['a']", "[1,]", "null", "```json\n[1]", "[" * 5000, "[" * 10 + "]" * 10, "{" * 5000,
        "[" + "0," * 1000 + "0]", "[" + "9" * 5000 + "]", '{"a": ' * 3000, "[\uff11]", "``````x",
    ],
)  # fmt: skip
def test_malformed(text: str) -> None:
    assert parse_json(text).status == "malformed", text[:40]


@pytest.mark.parametrize("text", ["", " ", "``````", "```json```"])
def test_missing(text: str) -> None:
    assert parse_json(text).status == "missing"


def test_depth_counts_containers_of_values() -> None:
    assert parse_json("[[1]]", max_depth=2).status == "ok"
    assert parse_json("[[1]]", max_depth=1).status == "malformed"


def test_a_megabyte_is_refused_in_a_moment() -> None:
    for unit in ("[", '{"a":', "```", "[1],"):
        started = time.process_time()
        assert parse_json(unit * (10**6 // len(unit))).status == "malformed"
        assert time.process_time() - started < 2.0


def test_numbers_are_not_booleans() -> None:
    assert is_number(1) and is_number(-2.5) and is_number(0)
    assert not is_number(True) and not is_number("1") and not is_number(10**400)
    assert not is_number(float("nan"))
