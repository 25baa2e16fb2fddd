"""Which metrics share a chart, in which unit, and what a stranger should read from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from mmrl.report import charts
from mmrl.report.charts import COLOURS, Chart, Line, gibibytes, number, percent, seconds

Rows = Sequence[Mapping[str, Any]]
Format = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Curve:
    """A drawn chart; the legend has (colour class, label, value at the end)."""

    title: str
    hint: str
    svg: Markup
    legend: tuple[tuple[str, str, str], ...]


REWARD_KEYS = ("reward/mean", "reward/std", "reward/group_std")
SHARES = {
    "share/zero_variance": "groups with equal rewards",
    "share/truncated": "truncated",
    "share/unparsable": "not parsable",
    "share/unscorable": "not scorable",
}

ENTROPY = {"train/entropy": "entropy"}
GRADIENT = {"train/grad_norm": "norm"}
KL = {"train/kl": "KL"}
CLIP = {"train/clip_share_high": "above", "train/clip_share_low": "below"}


def main_curves(rows: Rows) -> list[Curve]:
    """Draw the charts every run has, leaving out those without a single value."""
    names = _names(rows)
    parts = {n: n.removeprefix("reward/") for n in names if _is_part(n)}
    wanted = [
        *_charts(rows, "Reward", "mean of all answers", {"reward/mean": "reward"}, number),
        *_charts(rows, "Reward parts", "before weighting", parts, number, low=0.0),
        *_charts(
            rows, "Metric", "the benchmark's number, on training prompts", _metric(names), number
        ),
        *_charts(rows, "Reward by task", "", _scoped(names, "task", "reward"), number),
        *_charts(rows, "Reward by modality", "", _scoped(names, "modality", "reward"), number),
        *_charts(rows, "Shares", "of groups or answers", SHARES, percent, low=0.0, high=1.0),
        *_charts(rows, "Entropy", "of the policy, nats a token", ENTROPY, number, low=0.0),
        *_charts(rows, "Gradient norm", "before clipping", GRADIENT, number, low=0.0),
        *[c for c in _charts(rows, "KL", "to the reference", KL, number) if is_drawn(c)],
        *[c for c in _charts(rows, "Clipped", "of tokens", CLIP, percent, low=0.0) if is_drawn(c)],
        *_charts(
            rows,
            "Length",
            "tokens of an answer",
            {"length/mean": "mean", "length/max": "longest"},
            number,
            low=0.0,
        ),
        *_time(rows, names),
        *_charts(rows, "Tokens", "a step", _under(names, "tokens"), number, low=0.0),
        *_memory(rows, names),
    ]
    return [curve_of(replace(chart, borders=borders(rows))) for chart in wanted]


def other_curves(rows: Rows) -> list[Curve]:
    """Draw every metric that `main_curves` does not, one chart each."""
    shown = {*SHARES, *ENTROPY, *GRADIENT, *KL, *CLIP, "train/clip_share"}
    shown |= {"reward/mean", "metric/mean", "step", "phase"}
    prefixes = ("task/", "modality/", "time/", "tokens/", "memory/", "length/", "eval/")
    rest = [
        name
        for name in _names(rows)
        if name not in shown and not _is_part(name) and not name.startswith(prefixes)
    ]
    found = [chart for name in rest for chart in _charts(rows, name, "", {name: name}, number)]
    return [curve_of(replace(chart, borders=borders(rows))) for chart in found if is_drawn(chart)]


def _names(rows: Rows) -> list[str]:
    """Names of all metrics in the order in which the run first wrote them."""
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def _is_part(name: str) -> bool:
    return name.startswith("reward/") and name not in REWARD_KEYS


def _metric(names: Sequence[str]) -> dict[str, str]:
    return {"metric/mean": "training"} | {n: n for n in names if n.startswith("eval/")}


def _scoped(names: Sequence[str], scope: str, leaf: str) -> dict[str, str]:
    found = [n for n in names if n.startswith(f"{scope}/") and n.endswith(f"/{leaf}")]
    return {name: name.removeprefix(f"{scope}/").removesuffix(f"/{leaf}") for name in found}


def _under(names: Sequence[str], scope: str) -> dict[str, str]:
    return {n: n.removeprefix(f"{scope}/") for n in names if n.startswith(f"{scope}/")}


def _memory(rows: Rows, names: Sequence[str]) -> list[Chart]:
    """Draw host and GPU apart: a leak of one would vanish on the scale of the other."""
    shown = {
        "Host memory": {"memory/peak": "peak", "memory/media": "of it, kept media"},
        "GPU memory": {"memory/cuda_peak": "peak"},
    }
    known = {name for labels in shown.values() for name in labels}
    rest = {n: label for n, label in _under(names, "memory").items() if n not in known}
    shown |= {f"Memory: {label}": {name: label} for name, label in rest.items()}
    found = []
    for title, wanted in shown.items():
        lines = [charts.line(rows, name, label, 1 / 1024) for name, label in wanted.items()]
        drawn = tuple(line for line in lines if line is not None)
        if drawn:
            found.append(Chart(title, "", drawn, gibibytes, low=0.0))
    return found


def is_drawn(chart: Chart) -> bool:
    """Whether a chart has anything but zeros."""
    values = [value for line in chart.lines for _, value in line.points]
    return any(value != 0 for value in values)


def _charts(
    rows: Rows,
    title: str,
    hint: str,
    labels: Mapping[str, str],
    form: Format,
    *,
    low: float | None = None,
    high: float | None = None,
) -> list[Chart]:
    """Make one chart of the metrics that have values; more than the palette holds make several."""
    found = [charts.line(rows, key, label) for key, label in labels.items()]
    lines = [line for line in found if line is not None]
    return [
        Chart(title, hint, tuple(lines[start : start + COLOURS]), form, low, high)
        for start in range(0, len(lines), COLOURS)
    ]


def _time(rows: Rows, names: Sequence[str]) -> list[Chart]:
    """Stack the stages with the largest at the bottom; small ones beyond the palette are merged."""
    labels = {n: label for n, label in _under(names, "time").items() if label != "step"}
    lines = [line for key, label in labels.items() if (line := charts.line(rows, key, label))]
    if not lines:
        return _charts(rows, "Time", "a step", {"time/step": "step"}, seconds, low=0.0)
    lines.sort(key=lambda line: -sum(value for _, value in line.points))
    kept, rest = lines[: COLOURS - 1], lines[COLOURS - 1 :]
    if rest:
        total: dict[int, float] = {}
        for line in rest:
            for step, value in line.points:
                total[step] = total.get(step, 0.0) + value
        kept.append(Line("other", sorted(total.items())))
    hint = "seconds a step, by stage"
    return [Chart("Time", hint, tuple(kept), seconds, low=0.0, stacked=True)]


def unit_of(name: str) -> Format:
    """How the values of a metric are written."""
    if name.startswith("share/"):
        return percent
    return seconds if name.startswith("time/") else number


def borders(rows: Rows) -> tuple[float, ...]:
    """Where one phase ends and the next begins, on the axis of steps."""
    return tuple(
        float(before["step"]) + 0.5
        for before, after in pairwise(rows)
        if before.get("phase") != after.get("phase")
    )


def curve_of(chart: Chart) -> Curve:
    """Draw a chart, with its legend."""
    legend = tuple(
        (f"c{index}", line.label, chart.form(charts.last(line.points)))
        for index, line in enumerate(chart.lines)
    )
    return Curve(chart.title, chart.hint, charts.draw(chart), legend)
