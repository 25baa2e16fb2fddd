"""The outcome of reading model text, kept apart from any score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mmrl.types import Status

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Parsed(Generic[T]):
    """A value if `status` is "ok", else None and the reason why there is none."""

    status: Status
    value: T | None = None
    reason: str = ""

    def then(self, read: Callable[[T], Parsed[U]]) -> Parsed[U]:
        """Read on from the value; a failure passes through.

        >>> ok("3").then(lambda text: ok(int(text))).value
        3
        """
        if self.value is None:
            return Parsed(self.status, None, self.reason)
        return read(self.value)


def ok(value: T) -> Parsed[T]:
    """Wrap a value that was read.

    >>> ok(3)
    Parsed(status='ok', value=3, reason='')
    """
    return Parsed("ok", value)


def malformed(reason: str) -> Parsed[T]:
    """Say why the text is not a value of the expected kind.

    >>> malformed("no number").then(ok).reason
    'no number'
    """
    return Parsed("malformed", None, reason)
