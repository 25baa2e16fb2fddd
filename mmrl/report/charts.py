"""Small line and area charts as inline SVG: axes, smoothing, values under the pointer, no script.

Everything drawn goes through `Markup.format`, which escapes names that come from a run.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from mmrl.runlog.rows import series

Points = Sequence[tuple[int, float]]

WIDTH, HEIGHT = 420.0, 220.0  # of the viewBox; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 52.0, 10.0, 12.0, 30.0
COLOURS = 8  # classes .c0 ... .c7 of the style sheet
MAX_SPOTS = 120  # places along the x axis that answer to the pointer
THIN, MINUS = "\N{NARROW NO-BREAK SPACE}", "\N{MINUS SIGN}"
SMOOTH_FROM = 20  # points; shorter curves are drawn as they are


@dataclass(frozen=True, slots=True)
class Line:
    label: str
    points: Points


@dataclass(frozen=True, slots=True)
class Chart:
    """A titled chart of lines in one unit; `stacked` fills them on top of each other.

    `low` and `high` are values the y axis must reach; the data may stretch it further. `borders`
    are the steps between which and the next a phase begins.
    """

    title: str
    hint: str
    lines: tuple[Line, ...]
    form: Callable[[float], str]
    low: float | None = None
    high: float | None = None
    stacked: bool = False
    borders: tuple[float, ...] = ()


def number(value: float | None) -> str:
    """Write a number with three significant digits, thousands apart: 0.431, 12.3, 4 210."""
    if value is None:
        return "\N{EN DASH}"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}".replace(",", THIN).replace("-", MINUS)
    if size < 0.001:
        return f"{value:.2g}".replace("-", MINUS)
    digits = min(4, 2 - math.floor(math.log10(size)))
    text = f"{value:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", MINUS)


def percent(value: float) -> str:
    return f"{number(100 * value)}{THIN}%"


def seconds(value: float) -> str:
    if 0 < value < 0.001:
        return f"<1{THIN}ms"
    return f"{number(value)}{THIN}s"


def gibibytes(value: float) -> str:
    return f"{number(value)}{THIN}GiB"


def smooth(points: Points) -> Points:
    """Average each point with its neighbours, a twentieth of the curve in all; ends use fewer."""
    if len(points) < SMOOTH_FROM:
        return points
    reach = max(1, len(points) // 40)
    values = [value for _, value in points]
    found = []
    for index, (step, _) in enumerate(points):
        near = values[max(0, index - reach) : index + reach + 1]
        found.append((step, sum(near) / len(near)))
    return found


def stride_of(low: float, high: float, count: int) -> float:
    """Choose a round distance that fits about `count` times between two numbers."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= raw * 0.999)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Choose round numbers between `low` and `high`, about `count` of them."""
    stride = stride_of(low, high, count)
    first = math.ceil(low / stride - 1e-9)
    last = math.floor(high / stride + 1e-9)
    return [index * stride for index in range(first, last + 1)]


def enclosing(
    low: float, high: float, form: Callable[[float], str], fixed: float | None = None
) -> list[float]:
    """Choose round numbers of which the outer ones enclose `low` and `high`.

    Each is written differently by `form`; a `low` that is `fixed` is not moved away.
    """
    margin = 0.1 * abs(high) or 0.1
    if low == high:
        low, high = (low if low == fixed else low - margin), high + margin
    found: list[float] = []
    for _ in range(40):
        stride = stride_of(low, high, 4)
        first = math.floor(low / stride + 1e-9)
        last = math.ceil(high / stride - 1e-9)
        found = [index * stride for index in range(first, last + 1)]
        if len({form(tick) for tick in found}) == len(found):
            break
        half = (high - low) / 2  # values that differ in the fifth digit all read the same
        low, high = (low if low == fixed else low - half), high + half
    return found


@dataclass(frozen=True, slots=True)
class Axes:
    """Maps steps and values to the viewBox; `rows` are the values that are labelled."""

    first: float
    last: float
    low: float
    high: float
    rows: tuple[float, ...]

    def x(self, step: float) -> float:
        share = (step - self.first) / (self.last - self.first)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def path(self, points: Points) -> str:
        return "M" + "L".join(f"{self.x(step)} {self.y(value)}" for step, value in points)

    def area(self, upper: Points, lower: Points) -> str:
        return self.path([*upper, *reversed(lower)]) + "Z"


def axes_for(chart: Chart, drawn: Sequence[Points]) -> Axes:
    """Fit axes from tick to tick around what is drawn, and around `low` and `high` of the chart."""
    steps = [step for points in drawn for step, _ in points]
    values = [value for points in drawn for _, value in points]
    values += [edge for edge in (chart.low, chart.high) if edge is not None]
    low, high = min(values), max(values)
    rows = enclosing(low, high, chart.form, chart.low)
    first, last = min(steps), max(steps)
    alone = 1 if first == last else 0  # a single step stands in the middle
    return Axes(first - alone, last + alone, rows[0], rows[-1], tuple(rows))


def draw(chart: Chart) -> Markup:
    """Draw a chart as an `<svg>` element; every line must have a point."""
    stacked = chart.stacked and len(chart.lines[0].points) > 1
    if stacked:
        curves = _stack([smooth(line.points) for line in chart.lines])
        raw: list[Points] = []
    else:
        curves = [smooth(line.points) for line in chart.lines]
        raw = [line.points for line in chart.lines]
    axes = axes_for(chart, raw or curves)
    borders = [step for step in chart.borders if axes.first <= step <= axes.last]
    label = f"{chart.title}: {', '.join(line.label for line in chart.lines)}"
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}{}</svg>').format(
        int(WIDTH),
        int(HEIGHT),
        label,
        _grid(axes, chart.form),
        _join(_border(axes.x(step)) for step in borders),
        _areas(axes, curves) if stacked else _lines(axes, raw, curves),
        _spots(axes, chart, curves),
    )


def _border(x: float) -> Markup:
    line = Markup('<path class="border" d="M{} {}V{}"><title>a phase begins</title></path>')
    return line.format(x, TOP, HEIGHT - BOTTOM)


def _stack(curves: Sequence[Points]) -> list[Points]:
    """Add each curve to those below it; a stage a step did not have counts 0 there."""
    total: dict[int, float] = {step: 0.0 for points in curves for step, _ in points}
    stacked: list[Points] = []
    for points in curves:
        for step, value in points:
            total[step] += value
        stacked.append(sorted(total.items()))
    return stacked


def _join(pieces: Iterable[Markup]) -> Markup:
    return Markup("").join(pieces)


def _grid(axes: Axes, form: Callable[[float], str]) -> Markup:
    row = Markup(
        '<path class="grid" d="M{} {}H{}"/><text class="tick" x="{}" y="{}" text-anchor="end">'
        "{}</text>"
    )
    column = Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>')
    rows = [
        row.format(LEFT, axes.y(tick), WIDTH - RIGHT, LEFT - 6, axes.y(tick) + 4, form(tick))
        for tick in axes.rows
    ]
    whole = sorted({round(tick) for tick in ticks(axes.first, axes.last, 5)})
    columns = [
        column.format(axes.x(step), HEIGHT - 8, number(step))
        for step in whole
        if axes.first <= step <= axes.last
    ]
    name = Markup('<text class="tick" x="{}" y="{}" text-anchor="end">step</text>')
    return _join([*rows, *columns, name.format(LEFT - 6, HEIGHT - 8)])


def _lines(axes: Axes, raw: Sequence[Points], curves: Sequence[Points]) -> Markup:
    dot = Markup('<circle class="dot c{}" cx="{}" cy="{}" r="2.8"/>')
    pieces: list[Markup] = []
    for index, (points, curve) in enumerate(zip(raw, curves, strict=True)):
        if curve is points:
            pieces += [dot.format(index, axes.x(step), axes.y(value)) for step, value in points]
        else:
            pieces.append(_path("raw", index, axes.path(thin(points))))
        pieces.append(_path("line", index, axes.path(thin(curve))))
    return _join(pieces)


def _areas(axes: Axes, curves: Sequence[Points]) -> Markup:
    floor: Points = [(step, 0.0) for step, _ in curves[-1]]
    pieces = []
    for index, curve in enumerate(curves):
        pieces.append(_path("area", index, axes.area(thin(curve), thin(floor))))
        floor = curve
    return _join(pieces)


def _path(kind: str, index: int, path: str) -> Markup:
    return Markup('<path class="{} c{}" d="{}"/>').format(kind, index, path)


def thin(points: Points, limit: int = 400) -> Points:
    """Average runs of neighbours until at most `limit` points are left."""
    if len(points) <= limit:
        return points
    found = []
    for index in range(limit):
        run = points[index * len(points) // limit : (index + 1) * len(points) // limit]
        found.append((run[len(run) // 2][0], sum(value for _, value in run) / len(run)))
    return found


def _spots(axes: Axes, chart: Chart, curves: Sequence[Points]) -> Markup:
    """Invisible columns that show their step's values when pointed at."""
    steps = sorted({step for points in curves for step, _ in points})
    chosen = steps if len(steps) <= MAX_SPOTS else _evenly(steps, MAX_SPOTS)
    edges = [(a + b) / 2 for a, b in pairwise(chosen)]
    starts, ends = [axes.first, *edges], [*edges, axes.last]
    spot = Markup(
        '<g class="spot"><rect x="{}" y="0" width="{}" height="{}"/><path d="M{} {}V{}"/>{}'
        "<title>{}</title></g>"
    )
    pieces = []
    for step, start, end in zip(chosen, starts, ends, strict=True):
        left, width = axes.x(start), max(1.0, round(axes.x(end) - axes.x(start), 1))
        marks = _marks(axes, curves, step)
        x = axes.x(step)
        pieces.append(
            spot.format(left, width, HEIGHT, x, TOP, HEIGHT - BOTTOM, marks, _caption(chart, step))
        )
    return _join(pieces)


def _marks(axes: Axes, curves: Sequence[Points], step: int) -> Markup:
    mark = Markup('<circle class="c{}" cx="{}" cy="{}" r="3"/>')
    found = [(index, at(points, step)) for index, points in enumerate(curves)]
    return _join(
        mark.format(index, axes.x(step), axes.y(value))
        for index, value in found
        if value is not None
    )


def _caption(chart: Chart, step: int) -> str:
    rows = [(line.label, at(line.points, step)) for line in chart.lines]
    known = [f"{label}  {chart.form(value)}" for label, value in rows if value is not None]
    return "\n".join([f"step {step}", *known])


def at(points: Points, step: int) -> float | None:
    """Look up a curve at a step; None where it has no point there."""
    index = bisect_right(points, step, key=lambda point: point[0]) - 1
    return points[index][1] if index >= 0 and points[index][0] == step else None


def _evenly(steps: Sequence[int], count: int) -> list[int]:
    return [steps[round(index * (len(steps) - 1) / (count - 1))] for index in range(count)]


@dataclass(frozen=True, slots=True)
class Interval:
    """A benchmark number with its interval; without one, low and high equal the value."""

    label: str
    value: float
    low: float
    high: float


def intervals(rows: Sequence[Interval]) -> Markup:
    """Draw numbers with their intervals as bars on one shared axis."""
    low, high = min(row.low for row in rows), max(row.high for row in rows)
    unit = low >= 0 and high <= 1
    first, last = (0.0, 1.0) if unit else (min(0.0, low), high * 1.05 or 1.0)
    height = 30 * len(rows) + 24

    def x(value: float) -> float:
        return round(64 + (value - first) / (last - first) * 330, 1)

    bar = Markup(
        '<text x="0" y="{}">{}</text><path class="span {}" d="M{} {}H{}"/>'
        '<circle class="{}" cx="{}" cy="{}" r="6"><title>{}</title></circle>'
    )
    pieces = []
    for index, row in enumerate(rows):
        y = 18 + 30 * index
        name = "e0" if row.label == "before" else "e1"
        told = f"{row.label}: {number(row.value)} (from {number(row.low)} to {number(row.high)})"
        pieces.append(
            bar.format(
                y + 4, row.label, name, x(row.low), y, x(row.high), name, x(row.value), y, told
            )
        )
    tick = Markup(
        '<path class="grid" d="M{0} 4V{1}"/>'
        '<text class="tick" x="{0}" y="{2}" text-anchor="middle">{3}</text>'
    )
    grid = [tick.format(x(v), height - 20, height - 4, number(v)) for v in ticks(first, last)]
    return Markup('<svg class="intervals" viewBox="0 0 410 {}" role="img">{}{}</svg>').format(
        height, _join(grid), _join(pieces)
    )


def line(
    rows: Sequence[Mapping[str, object]], key: str, label: str, scale: float = 1.0
) -> Line | None:
    """Make a line of one metric, times `scale`; None where no step has it."""
    points = [(step, scale * value) for step, value in series(rows, key)]
    return Line(label, points) if points else None


def last(points: Points) -> float:
    """The smoothed value at the end, for a legend."""
    return smooth(points)[-1][1]
