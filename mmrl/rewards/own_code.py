"""Where an error lies in the user's own code, so that its line can be said."""

from __future__ import annotations

import inspect
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmrl.errors import ConfigError, MediaError, UserError, one_line

_OTHERS = tuple(
    {
        str(Path(__file__).parents[1]),
        *(sysconfig.get_path(n) for n in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)
"""Folders of what others wrote: this package, Python's library, installed packages."""


class Misreturned(TypeError):
    """The user's own code gave what its contract does not allow; the words say all."""


def place_of(error: BaseException) -> str:
    """The file and line of the user's own code that an error came through last; "" if none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        made = frame.filename.startswith(("<frozen", "<string>"))
        if not made and not frame.filename.startswith(_OTHERS):
            return f"{Path(frame.filename).name}:{frame.lineno}"
    return ""


def said_of(error: BaseException) -> str:
    """An error in a line, such as `env.py:23: KeyError: 'tries'`."""
    if isinstance(error, Misreturned):
        return one_line(error, 500)
    words = one_line(error, 500)
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    place = place_of(error)
    return f"{place}: {said}" if place else said


def defined_at(function: Callable[..., Any]) -> str:
    """Where a function begins, such as `env.py:20: `, to stand before what is wrong with it."""
    held = inspect.unwrap(getattr(function, "func", function))
    code = getattr(held, "__code__", None) or getattr(type(held).__call__, "__code__", None)
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}: " if code else ""


@contextmanager
def own_code(what: str, *, all_of_it: bool) -> Iterator[None]:
    """Turn what the user's own code raises into a ConfigError of one line.

    `all_of_it`: so is what came through no line of it, such as a call with the wrong arguments.
    """
    try:
        yield
    except (UserError, MediaError):
        raise
    except Exception as error:  # a user's own code
        if not (all_of_it or isinstance(error, Misreturned) or place_of(error)):
            raise
        raise ConfigError(f"{what}: {said_of(error)}") from None
