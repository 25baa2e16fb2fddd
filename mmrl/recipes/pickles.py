"""Pickles of plain data; whatever would run code is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from mmrl.errors import UserError


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants to import {module}.{name}")


def load_plain(path: Path) -> Any:
    """Load lists, dicts, texts and numbers, texts of Python 2 as latin-1.

    A pickle that names any class or function, or is damaged, raises UserError.
    """
    with path.open("rb") as file:
        try:
            return _PlainUnpickler(file, encoding="latin-1").load()
        except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError) as error:
            raise UserError(f"{path}: not a pickle of plain data: {error}") from None
