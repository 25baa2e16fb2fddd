"""The held-out numbers before and after training, task by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from mmrl.report.charts import Interval, intervals
from mmrl.runlog.rows import finite

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """One task's number; `improved` and `worsened` count records by their own metric."""

    task: str
    metric: str
    records: int | None
    before: float | None
    after: float | None
    lower_is_better: bool
    improved: int
    worsened: int
    drawn: Markup


def results_of(evals: Mapping[str, Row], result: Row) -> list[Result]:
    """Pair `eval_before.json` with `eval_after.json`; without both, take `result.json`."""
    sides = {name: _by_task(evals.get(name, {})) for name in ("before", "after")}
    tasks = list(dict.fromkeys([*sides["before"], *sides["after"]]))
    rows = [{side: found.get(task, {}) for side, found in sides.items()} for task in tasks]
    if not rows:
        rows = [{side: {"metric": result.get(side)} for side in sides}]
    made = [_result(row["before"], row["after"]) for row in rows]
    return [one for one in made if one is not None]


def _by_task(evaluation: Row) -> dict[str, Row]:
    """Split a file into its tasks: the first one at the top, more of them under `others`."""
    others = evaluation.get("others")
    rows = [evaluation, *(others if isinstance(others, list) else [])]
    known = [row for row in rows if isinstance(row, dict) and finite(row.get("metric")) is not None]
    return {str(row.get("task", "")): row for row in known}


def _result(before: Row, after: Row) -> Result | None:
    bars = [_interval(label, row) for label, row in (("before", before), ("after", after))]
    known = [bar for bar in bars if bar is not None]
    if not known:
        return None
    latest = after or before
    records = finite(latest.get("records"))
    rose, fell = _changes(before, after)
    lower_is_better = latest.get("better") == "lower"
    return Result(
        task=str(latest.get("task", "")),
        metric=str(latest.get("metric_name", "")),
        records=None if records is None else int(records),
        before=bars[0].value if bars[0] else None,
        after=bars[1].value if bars[1] else None,
        lower_is_better=lower_is_better,
        improved=fell if lower_is_better else rose,
        worsened=rose if lower_is_better else fell,
        drawn=intervals(known),
    )


def _interval(label: str, row: Row) -> Interval | None:
    value = finite(row.get("metric"))
    if value is None:
        return None
    low, high = finite(row.get("low")), finite(row.get("high"))
    return Interval(label, value, value if low is None else low, value if high is None else high)


def answers_of(evaluation: Row) -> dict[str, tuple[float, str]]:
    """The metric and the text of each record of an evaluation that has a metric."""
    listed = evaluation.get("answers")
    return {
        str(row.get("id")): (value, str(row.get("text", "")))
        for row in (listed if isinstance(listed, list) else [])
        if isinstance(row, dict) and (value := finite(row.get("metric"))) is not None
    }


def _changes(before: Row, after: Row) -> tuple[int, int]:
    """Count the records whose own metric rose and fell; unscorable ones count in neither."""
    first, second = answers_of(before), answers_of(after)
    both = [(first[record][0], second[record][0]) for record in first if record in second]
    return sum(new > old for old, new in both), sum(new < old for old, new in both)
