"""`mmrl compare`: two evaluations of the same records, record by record."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmrl.errors import DataError
from mmrl.evaluate.summary import mean_estimate
from mmrl.types import Floats

AFTER = "eval_after.json"


@dataclass(frozen=True)
class Comparison:
    """What the second of two evaluations has more than the first, over the records of both.

    `first` and `second` are means of the records' metrics, `difference` second minus first, `low`
    and `high` its 95 % interval over resampled records, each with both of its metrics. `more` and
    `less` count the records whose metric is larger or smaller in the second. `unshared` are in one
    evaluation only, and in no number.
    """

    metric: str
    better: str
    records: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    more: int
    less: int
    unshared: int

    def lines(self) -> list[str]:
        """The numbers in words."""
        beyond = self.low > 0 or self.high < 0
        gained = (self.difference > 0) == (self.better == "higher")
        verdict = f"{'better' if gained else 'worse'}, the interval is on one side of 0"
        lines = [
            f"{self.metric} {self.first:.4f} -> {self.second:.4f} on {self.records} records",
            f"difference {self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}], paired",
            f"{self.more} records have more, {self.less} less, "
            f"{self.records - self.more - self.less} the same",
            verdict if beyond else "no difference is shown: the interval holds 0",
        ]
        if self.unshared:
            lines.append(f"{self.unshared} records are in one of the two only, and in no number")
        return lines

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(first: Path, second: Path) -> Comparison:
    """Compare two results of `mmrl eval --out`, or two runs by what they evaluated at their end.

    An answer that reached no verdict counts 0, as in an evaluation. Raises DataError where they
    are of different tasks or share no record.
    """
    one, two = _read(first), _read(second)
    for key in ("task", "metric_name"):
        if one[key] != two[key]:
            raise DataError(f"{first} is of {key} {one[key]}, {second} of {two[key]}")
    ours, theirs = _by_record(one), _by_record(two)
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise DataError(f"{first} and {second} have no record in common")
    a = np.array([ours[name] for name in shared])
    b = np.array([theirs[name] for name in shared])
    return _compared(a, b, one, len(ours) + len(theirs) - 2 * len(shared))


def _compared(a: Floats, b: Floats, result: Mapping[str, Any], unshared: int) -> Comparison:
    found = mean_estimate((b - a).tolist(), [[i] for i in range(len(a))])
    return Comparison(
        metric=result["metric_name"],
        better=result["better"],
        records=len(a),
        first=float(a.mean()),
        second=float(b.mean()),
        difference=found.value,
        low=found.low,
        high=found.high,
        more=int((b > a).sum()),
        less=int((b < a).sum()),
        unshared=unshared,
    )


def _read(path: Path) -> dict[str, Any]:
    file = path / AFTER if path.is_dir() else path
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known = {"task", "metric_name", "better", "answers"} <= result.keys()
    except OSError:
        what = "the run evaluated nothing at its end" if path.is_dir() else "no such file"
        raise DataError(f"no evaluation at {file}: {what}") from None
    except (ValueError, AttributeError):
        known = False
    if not known:
        raise DataError(f"{file} is no result of `mmrl eval --out`")
    return result


def _by_record(result: Mapping[str, Any]) -> dict[str, float]:
    """The mean metric of each record's answers."""
    found: dict[str, list[float]] = defaultdict(list)
    for answer in result["answers"]:
        found[answer["id"]].append(answer["metric"] or 0.0)
    return {name: sum(values) / len(values) for name, values in found.items()}
