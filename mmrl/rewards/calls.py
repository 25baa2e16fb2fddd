"""Function calls as models write them -> names and plain arguments, without eval or ast.

Two spellings: JSON objects, one a line, and Python calls with keyword arguments. The Python reader
is a tokenizer and a small recursive descent under caps, so its time is linear and nothing runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmrl.rewards.json_text import parse_json
from mmrl.rewards.parsed import Parsed, malformed, ok

MAX_CALLS = 32
_MAX_DEPTH = 8
_MAX_TOKENS = 4_000
_MAX_CHARACTERS = 16_384

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
    |(?P<symbol>[\[\](){},:=])
    |(?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_CONSTANTS = {
    "True": True, "False": False, "None": None, "true": True, "false": False, "null": None,
}  # fmt: skip
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}
_MAX_DIGITS = 30


@dataclass(frozen=True, slots=True)
class Call:
    """A call: the function's name and its arguments by name, plain JSON values."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def parse_call_lines(text: str) -> Parsed[tuple[Call, ...]]:
    """Read lines `{"name": ..., "parameters": {...}}`, one call each; blank lines are skipped.

    A line with other keys, or that is no such object, makes the whole malformed.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return Parsed("missing", None, "no call")
    if len(lines) > MAX_CALLS:
        return malformed(f"more than {MAX_CALLS} calls")
    calls: list[Call] = []
    for line in lines:
        parsed = parse_json(line)
        if parsed.value is None:
            return malformed(parsed.reason or "not a call")
        call = call_of(parsed.value)
        if call.value is None:
            return malformed(call.reason)
        calls.append(call.value)
    return ok(tuple(calls))


def call_of(value: Any, arguments: str = "parameters") -> Parsed[Call]:
    """Take a JSON object with exactly a name and an object of arguments as a call."""
    if not isinstance(value, dict) or value.keys() != {"name", arguments}:
        return malformed(f'a call is {{"name": ..., "{arguments}": {{...}}}}')
    if not isinstance(value["name"], str) or not isinstance(value[arguments], dict):
        return malformed("a call has a text for a name and an object of arguments")
    return ok(Call(value["name"], value[arguments]))


def parse_calls(text: str) -> Parsed[tuple[Call, ...]]:
    """Read Python calls `f(a=1)`, several separated by commas, with or without list brackets.

    `[]` is no call at all. Positional arguments, repeated names, and anything that is not a
    literal (variables, operators, nested calls) are malformed.
    """
    if not text.strip():
        return Parsed("missing", None, "no call")
    try:
        return ok(tuple(_Reader(text).calls()))
    except _Unreadable as error:
        return malformed(str(error))


def parse_literal(text: str) -> Parsed[Any]:
    """Read one literal in Python or JSON spelling; tuples are lists. `None` alone is malformed."""
    if not text.strip():
        return Parsed("missing", None, "empty literal")
    try:
        reader = _Reader(text)
        value = reader.value(0)
        reader.expect("end")
    except _Unreadable as error:
        return malformed(str(error))
    return malformed("null is no answer") if value is None else ok(value)


class _Unreadable(ValueError):
    pass


class _Reader:
    """Recursive descent over the tokens; `kind` and `token` are the next one."""

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_CHARACTERS:
            raise _Unreadable(f"longer than {_MAX_CHARACTERS} characters")
        self._text = text
        self._at = 0
        self._left = _MAX_TOKENS
        self._next()

    def calls(self) -> list[Call]:
        listed = self._take("[")
        calls: list[Call] = []
        while self.kind == "name" and len(calls) < MAX_CALLS:
            calls.append(self._call())
            if not self._take(","):
                break
        if listed:
            self.expect("]")
        self.expect("end")
        if not calls and not listed:
            raise _Unreadable("no call")
        return calls

    def value(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise _Unreadable(f"nested deeper than {_MAX_DEPTH}")
        kind, token = self.kind, self.token
        self._next()
        if kind == "string":
            return _unescape(token[1:-1])
        if kind == "number":
            return _number(token)
        if kind == "name" and token in _CONSTANTS:
            return _CONSTANTS[token]
        if token in ("[", "("):
            return self._items("]" if token == "[" else ")", depth)
        if token == "{":
            return self._pairs(depth)
        raise _Unreadable(f"not a literal: '{token:.20}'")

    def expect(self, token: str) -> None:
        if not self._take(token):
            raise _Unreadable(f"'{self.token:.20}' where '{token}' was due")

    def _call(self) -> Call:
        name = self.token
        self._next()
        self.expect("(")
        arguments: dict[str, Any] = {}
        while not self._take(")"):
            key, is_name = self.token, self.kind == "name"
            self._next()
            if not is_name or key in arguments or not self._take("="):
                raise _Unreadable(f"arguments are given once and by name: '{key:.20}'")
            arguments[key] = self.value(0)
            if not self._take(","):
                self.expect(")")
                break
        return Call(name, arguments)

    def _items(self, closing: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while not self._take(closing):
            items.append(self.value(depth + 1))
            if not self._take(","):
                self.expect(closing)
                break
        return items

    def _pairs(self, depth: int) -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        while not self._take("}"):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in pairs:
                raise _Unreadable("keys are texts, each once")
            self.expect(":")
            pairs[key] = self.value(depth + 1)
            if not self._take(","):
                self.expect("}")
                break
        return pairs

    def _take(self, token: str) -> bool:
        if (self.kind if token == "end" else self.token) != token or self.kind == "string":
            return False
        if token != "end":
            self._next()
        return True

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self._at)
        self._left -= 1
        if match is None or match.lastgroup is None or not self._left:
            raise _Unreadable(f"unexpected text: '{self._text[self._at : self._at + 20]}'")
        self.kind, self.token = match.lastgroup, match[match.lastgroup]
        self._at = match.end()


def _number(token: str) -> int | float:
    if len(token) > _MAX_DIGITS:
        raise _Unreadable(f"numeral of more than {_MAX_DIGITS} characters")
    if token.lstrip("+-").isdigit():
        return int(token)
    value = float(token)
    if not math.isfinite(value):
        raise _Unreadable("a number beyond the range of floats")
    return value


def _unescape(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        code = match[1]
        if len(code) == 5:
            return chr(int(code[1:], 16))
        return _ESCAPES.get(code, code if code in "\"'\\/" else match[0])

    return _ESCAPE.sub(plain, text)
