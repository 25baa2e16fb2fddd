"""How hard a record is for a model: its pass rate over scored answers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrl.corpus.json_rows import json_lines
from mmrl.errors import UserError

_BANDS = 10


@dataclass
class PassRates:
    """Pass rate in [0, 1] by record id, and which of them were asked for."""

    rates: dict[str, float]
    used: set[str] = field(default_factory=set)

    def take(self, id: str) -> float | None:
        """The record's rate, None where no answer of it was scored."""
        if id in self.rates:
            self.used.add(id)
        return self.rates.get(id)

    def report(self, records: int) -> dict[str, Any]:
        """How many records have a rate, and how the rates are spread over ten bands."""
        bands = [0] * _BANDS
        for id in self.used:
            bands[min(int(self.rates[id] * _BANDS), _BANDS - 1)] += 1
        return {
            "rated": len(self.used),
            "unrated": records - len(self.used),
            "unknown_ids": len(self.rates) - len(self.used),
            "by_tenth_of_pass_rate": bands,
        }


def read_pass_rates(path: Path) -> PassRates:
    """Mean over the lines of each id: its `pass_rate`, else its `metric`, as `mmrl score` writes.

    Unscorable answers (a metric of null) count neither way. A value outside [0, 1] raises
    UserError: errors in counts or seconds are no pass rates.
    """
    totals: dict[str, tuple[float, int]] = {}
    for number, row in _lines(path):
        value = row.get("pass_rate", row.get("metric"))
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise UserError(f"{path}:{number}: the pass rate is no number: {value!r:.40}")
        if not 0 <= value <= 1:
            raise UserError(f"{path}:{number}: pass rate {value:g} is outside 0 to 1")
        total, count = totals.get(str(row["id"]), (0.0, 0))
        totals[str(row["id"])] = (total + value, count + 1)
    return PassRates({id: total / count for id, (total, count) in totals.items()})


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise UserError(f"no file of scores at {path}: check --difficulty")
    for number, row in json_lines(path):
        if not isinstance(row, dict) or "id" not in row:
            raise UserError(f"{path}:{number}: a line needs an 'id'")
        yield number, row
