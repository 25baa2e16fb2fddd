"""Which records a run draws by the numbers in their columns, such as a band of pass rates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmrl.data.samples import Rows
from mmrl.data_config import Band
from mmrl.errors import DataError
from mmrl.types import Ints


class Bands:
    """Bands [low, high] of columns, ends included; a record needs to be in all of them.

    `records` were looked at, `without` of them lack a number in a column, `kept` are drawn.
    """

    def __init__(self, bands: Mapping[str, Band], path: Path) -> None:
        self._bands, self._path = bands, path
        self.records = self.without = self.kept = 0

    def places(self, rows: Rows, count: int) -> Ints:
        """The numbers [n] of those of the first `count` rows that are kept.

        Raises DataError where none is.
        """
        found = []
        for number in range(count):
            values = [_number(rows.record(number).fields.get(name)) for name in self._bands]
            known = [value for value in values if value is not None]
            self.without += len(known) < len(values)
            if len(known) == len(values) and all(
                low <= value <= high
                for value, (low, high) in zip(known, self._bands.values(), strict=True)
            ):
                found.append(number)
        self.records, self.kept = count, len(found)
        if not found:
            raise DataError(f"data.keep leaves no record of {self._path}: {self._said()}")
        return np.array(found, dtype=np.int64)

    def line(self, key: str) -> str:
        """What is to be said of them."""
        return f"{key}: data.keep draws {self.kept} of {self.records} records, {self._said()}"

    def _said(self) -> str:
        bands = ", ".join(
            f"{name} {low:g} to {high:g}" for name, (low, high) in self._bands.items()
        )
        return f"{bands}; {self.without} have no such number" if self.without else bands


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if np.isnan(number) else number
