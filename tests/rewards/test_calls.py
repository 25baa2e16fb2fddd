from __future__ import annotations

import time
from typing import Any

import pytest

from mmrl.rewards.calls import Call, parse_call_lines, parse_calls, parse_literal


def test_python_calls() -> None:
    text = """[math.sum(numbers=[1, -2.5, +3], exact=True),
               f(a='it\\'s "x"\\n', b={"k": (1, None)}),]"""
    assert parse_calls(text).value == (
        Call("math.sum", {"numbers": [1, -2.5, 3], "exact": True}),
        Call("f", {"a": 'it\'s "x"\n', "b": {"k": [1, None]}}),
    )
    assert parse_calls("f()").value == (Call("f"),)
    assert parse_calls("f(a=1), g(b=true)").value == (Call("f", {"a": 1}), Call("g", {"b": True}))
    assert parse_calls("[]").value == ()


@pytest.mark.parametrize(
    "text",
    [
        "f", "f(", "f(1)", "f(a)", "f(a=b)", "f(a=1", "f(a=1))", "f(a=1) g(b=2)", "f(a=1, a=2)",
        "f(a=g(b=1))", "f(a=1+1)", "f(**{'a': 1})", "[f(a=1)", "f(a=1)]", "f(a=)", "f(a==1)",
        "f(a='x)", "f(a=nan)", "f(a=1e999)", "f(a=[1,,2])", "f(a={1: 2})", "f(a={'k': 1, 'k': 2})",
        "f(a='x' 'y')", "lambda: 0", "f(a=0x10)", "f(a=1_000)", "f(a=\uff11)",
        "f(a=" + "9" * 31 + ")",
        "f(a=" + "[" * 20 + "]" * 20 + ")", ",".join(["f()"] * 33), "f('a'=1)", "'f'(a=1)",
        "f(a=1);", "f(a='[')]", "__import__('os').system(a='x')",
    ],
)  # fmt: skip
def test_not_calls(text: str) -> None:
    assert parse_calls(text).status == "malformed"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1, 2]", [1, 2]), ("{'a': [True, null]}", {"a": [True, None]}), ("'x'", "x"), ("-1", -1),
        ('"\\u00e9\\q"', "\u00e9\\q"), ("(1,)", [1]), ("1.", 1.0), ("[']']", ["]"]),
    ],
)  # fmt: skip
def test_literals(text: str, value: Any) -> None:
    assert parse_literal(text).value == value


@pytest.mark.parametrize("text", ["1 2", "[1 2]", "x", "None", "[", "{'a'}", "1.2.3", "'a", "--1"])
def test_not_literals(text: str) -> None:
    assert parse_literal(text).status == "malformed"


def test_json_lines() -> None:
    text = '\n{"name": "a b", "parameters": {"x": 1}}\n\n{"name": "c", "parameters": {}}\n'
    assert parse_call_lines(text).value == (Call("a b", {"x": 1}), Call("c"))
    assert parse_call_lines(" \n").status == "missing"
    for line in (
        '{"name": "a"}', '{"name": "a", "parameters": []}', '{"name": 1, "parameters": {}}', "[1]",
        '{"name": "a", "parameters": {}, "note": 1}', '{"name": "a", "parameters": {"x": NaN}}',
        '{"name": "a", "name": "b", "parameters": {}}', "null", "a(x=1)",
        '[{"name": "a", "parameters": {}}]',
    ):  # fmt: skip
        assert (
            parse_call_lines(f'{{"name": "ok", "parameters": {{}}}}\n{line}').status == "malformed"
        )
    assert parse_call_lines('{"name": "a", "parameters": {}}\n' * 33).status == "malformed"


def test_a_megabyte_is_refused_in_a_moment() -> None:
    for unit in ("[", "f(", "f(a='", "'", "{", "f(a=1),", "\\", "9", " "):
        for read in (parse_calls, parse_literal, parse_call_lines):
            started = time.process_time()
            assert read(unit * (10**6 // len(unit))).value is None
            assert time.process_time() - started < 1.0
