"""Intervals of time in seconds: reading them, mapping them to the source, overlap."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from mmrl.frame import Frame
from mmrl.rewards.numbers import NumberPolicy, parse_number, write_number
from mmrl.rewards.parsed import Parsed, malformed, ok

_POLICY = NumberPolicy(
    commas=False, exponent=False, dress=False, max_characters=16, max_magnitude=6
)
_CLOCK = re.compile(r"(?:([0-9]{1,2}):)?([0-9]{1,2}):([0-9]{2}(?:\.[0-9]{1,6})?)")
_UNIT = re.compile(r"\s*(?:s|sec|seconds)\.?$", re.IGNORECASE)
_PAIR = re.compile(r"\s*[(\[]([^()\[\]]{1,64})[)\]]\s*")


class Interval(NamedTuple):
    """start < end, in seconds; whether of the source or of the clip is said by its holder."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


def gold_interval(value: Any) -> Interval:
    """Take a data set's `[start, end]`; anything else or an empty interval raises ValueError."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"gold {value!r:.60} is not [start, end]")
    start, end = float(value[0]), float(value[1])
    if not 0 <= start < end < 1e6:
        raise ValueError(f"gold interval {value!r:.60} is empty, reversed or beyond reason")
    return Interval(start, end)


def parse_interval(text: str) -> Parsed[Interval]:
    """Read `12.5 to 17.8`, also with `and`, `s` or clock times; nothing else around it.

    A reversed or empty interval is malformed, as are negative numbers; three times are `multiple`.
    """
    text = text.strip()
    if not text:
        return Parsed("missing", None, "empty interval")
    if len(text) > 96:
        return malformed("longer than an interval")
    times = re.split(r"\s+(?:to|and)\s+", text, flags=re.IGNORECASE)
    if len(times) > 2:
        return Parsed("multiple", None, f"more than one interval: '{text:.40}'")
    return _interval(times, text)


def parse_intervals(text: str, max_intervals: int = 32) -> Parsed[tuple[Interval, ...]]:
    """Read `[(s, e), (s, e)]`, brackets of either kind and white space free; at least one."""
    text = text.strip()
    if not text:
        return Parsed("missing", None, "empty list of intervals")
    inner = text[1:-1].strip() if text.startswith("[") and text.endswith("]") else ""
    if not inner or inner[0] not in "([":
        inner = text
    found: list[Interval] = []
    at = 0
    while at < len(inner):
        pair = _PAIR.match(inner, at)
        if pair is None or len(found) == max_intervals:
            return malformed(f"not a list of up to {max_intervals} intervals: '{text:.40}'")
        interval = _interval(pair[1].split(","), pair[0])
        if interval.value is None:
            return malformed(interval.reason)
        found.append(interval.value)
        at = pair.end()
        if at < len(inner):
            if inner[at] not in ",;" or at + 1 == len(inner):
                return malformed(f"not a list of intervals: '{text:.40}'")
            at += 1
    return ok(tuple(found))


def write_interval(interval: Interval) -> str:
    """Write `12.5 to 17.8` with two decimals where needed."""
    return f"{write_number(interval.start, 2)} to {write_number(interval.end, 2)}"


def write_intervals(intervals: Sequence[Interval]) -> str:
    """Write `[(12.5, 17.8)]`."""
    pairs = (f"({write_number(s, 2)}, {write_number(e, 2)})" for s, e in intervals)
    return f"[{', '.join(pairs)}]"


def to_source(interval: Interval, frame: Frame) -> Interval:
    """Map seconds as the model counts them, from the first frame it sees, to source seconds."""
    first = frame.seconds[0]
    return Interval(interval.start + first, interval.end + first)


def from_source(interval: Interval, frame: Frame) -> Interval:
    """Map source seconds to those that the model counts from the first frame it sees."""
    first = frame.seconds[0]
    return Interval(interval.start - first, interval.end - first)


def merge(intervals: Sequence[Interval]) -> tuple[Interval, ...]:
    """The union of intervals as disjoint ones in order; touching ones become one."""
    merged: list[Interval] = []
    for interval in sorted(intervals):
        if merged and interval.start <= merged[-1].end:
            merged[-1] = Interval(merged[-1].start, max(merged[-1].end, interval.end))
        else:
            merged.append(interval)
    return tuple(merged)


def overlap_seconds(a: Sequence[Interval], b: Sequence[Interval]) -> float:
    """Length of the intersection of two unions of intervals."""
    return sum(
        max(0.0, min(x.end, y.end) - max(x.start, y.start)) for x in merge(a) for y in merge(b)
    )


def union_iou(a: Sequence[Interval], b: Sequence[Interval]) -> float:
    """Intersection over union of two unions of intervals; repeats count once."""
    shared = overlap_seconds(a, b)
    total = total_seconds(a) + total_seconds(b) - shared
    return shared / total if total > 0 else 0.0


def summed_iou(a: Sequence[Interval], b: Sequence[Interval]) -> float:
    """EchoInk's overlap of lists of intervals: every pair counts, so a repeat is paid for again.

    Where pairs share more than the lists are long, its denominator is no longer above 0: 0 then.
    """
    shared = sum(max(0.0, min(x.end, y.end) - max(x.start, y.start)) for x in a for y in b)
    total = sum(x.seconds for x in a) + sum(y.seconds for y in b) - shared
    return shared / total if total > 0 else 0.0


def iou(a: Interval, b: Interval) -> float:
    """Temporal intersection over union; 0 where they do not overlap."""
    return union_iou([a], [b])


def total_seconds(intervals: Sequence[Interval]) -> float:
    """Length of the union of intervals."""
    return sum(interval.seconds for interval in merge(intervals))


def _interval(times: Sequence[str], text: str) -> Parsed[Interval]:
    if len(times) != 2:
        return malformed(f"an interval has 2 times: '{text:.40}'")
    start, end = (_seconds(time) for time in times)
    if start is None or end is None:
        return malformed(f"not times: '{text:.40}'")
    if not start < end:
        return malformed(f"reversed or empty interval: '{text:.40}'")
    return ok(Interval(start, end))


def _seconds(text: str) -> float | None:
    text = _UNIT.sub("", text.strip())
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        hours, minutes, seconds = int(clock[1] or 0), int(clock[2]), float(clock[3])
        return hours * 3600 + minutes * 60 + seconds if seconds < 60 else None
    number = parse_number(text, _POLICY).value
    return float(number) if number is not None and number >= 0 else None
