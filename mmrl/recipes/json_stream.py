"""Large JSON files element by element, so that no data set is in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mmrl.errors import UserError

_CHUNK_CHARACTERS = 1 << 16
_DELIMITERS = frozenset(" \t\r\n,:]}")
_DECODER = json.JSONDecoder()


def array(path: Path, key: str | None = None) -> Iterator[Any]:
    """Yield the elements of the file's array, or of the array under `key` of its object.

    A file of another form raises UserError that names the file.
    """
    with path.open(encoding="utf-8-sig") as file:
        scanner = _Scanner(file, path)
        if key is None:
            yield from scanner.elements()
            return
        for name in scanner.names():
            if name == key:
                yield from scanner.elements()
                return
            scanner.skip()
    raise UserError(f"{path}: no '{key}' in it")


def members(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the (key, value) pairs of the file's object."""
    with path.open(encoding="utf-8-sig") as file:
        scanner = _Scanner(file, path)
        for name in scanner.names():
            yield name, scanner.value()


class _Scanner:
    """Reads on as values need it; what was consumed is forgotten."""

    def __init__(self, file: IO[str], path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at, self._ended = "", 0, False

    def peek(self) -> str:
        """The next character that is not white space, "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at].isspace():
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._fill(_CHUNK_CHARACTERS)

    def value(self) -> Any:
        """Decode the value that starts here."""
        self.peek()
        size = _CHUNK_CHARACTERS
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended:
                    raise self._broken(error.msg) from None
            else:
                # Cut anywhere, 0.5 reads as 0: a value is whole once a delimiter follows.
                if self._ended or self._text[end : end + 1] in _DELIMITERS:
                    self._at = end
                    return value
            self._fill(size)
            size *= 2

    def skip(self) -> None:
        """Pass over a value; a long array is never held as a whole."""
        if self.peek() == "[":
            for _ in self.elements():
                pass
        else:
            self.value()

    def elements(self) -> Iterator[Any]:
        """Yield what stands between brackets."""
        self._take("[")
        if self.peek() == "]":
            self._take("]")
            return
        while True:
            yield self.value()
            if self._take(",]") == "]":
                return

    def names(self) -> Iterator[str]:
        """Yield each key of an object; the caller takes its value before the next."""
        self._take("{")
        if self.peek() == "}":
            self._take("}")
            return
        while True:
            name = self.value()
            if not isinstance(name, str):
                raise self._broken("a key is no text")
            self._take(":")
            yield name
            if self._take(",}") == "}":
                return

    def _take(self, allowed: str) -> str:
        found = self.peek()
        if not found or found not in allowed:
            raise self._broken(f"expected one of '{allowed}', found '{found}'")
        self._at += 1
        return found

    def _fill(self, size: int) -> None:
        more = self._file.read(size)
        self._ended = not more
        self._text, self._at = self._text[self._at :] + more, 0

    def _broken(self, reason: str) -> UserError:
        return UserError(f"{self._path}: not the JSON that is expected here ({reason})")
