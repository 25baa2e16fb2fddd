"""Says what goes wrong while a run trains, when it begins, and now and then how it is going."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mmrl.alarm import Action, Alarm
from mmrl.runlog.diagnosis import alarms
from mmrl.runlog.progress import duration
from mmrl.runlog.rows import WINDOW, Row, percent, recent

AT_ONCE: frozenset[Alarm] = frozenset({"blind", "not_a_number"})
"""Alarms that need no window of steps."""

EVERY_SECONDS = 600.0  # between two lines of how it is going


@dataclass(frozen=True)
class Wrong:
    """An alarm that a run does something about: stops, or goes back to its last checkpoint."""

    does: Literal["stop", "roll_back"]
    line: str


class Health:
    """Looks at a run's rows after every step, but for those up to `since`.

    An alarm is told when it begins, and again when it comes back. `actions` say which are ignored,
    and which stop the run or roll it back; the others warn.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        actions: Mapping[Alarm, Action],
        clock: Callable[[], float] = time.monotonic,
        since: int = 0,
    ) -> None:
        self._since = since
        self._say, self._actions, self._clock = say, actions, clock
        self._begun = self._spoken = clock()
        self._on: set[Alarm] = set()

    def look(self, rows: Sequence[Row], max_new_tokens: int) -> Wrong | None:
        """Tell what began with the last row; returns the alarm that something is done about."""
        rows = [row for row in rows if row["step"] > self._since]
        present = [row for row in rows if row.get("phase") == rows[-1].get("phase")]
        found = {
            name: line
            for name, line in alarms(rows, max_new_tokens=max_new_tokens).items()
            if self._actions.get(name) != "ignore" and (name in AT_ONCE or len(present) >= WINDOW)
        }
        new = [name for name in found if name not in self._on]
        self._on = set(found)
        for name in new:
            action = self._actions.get(name)
            if action == "stop" or action == "roll_back":
                return Wrong(action, f"alarm '{name}': {found[name]}")
            self._say(f"step {rows[-1]['step']}, alarm '{name}': {found[name]}")
        if self._clock() - self._spoken >= EVERY_SECONDS:
            self._spoken = self._clock()
            self._say(f"after {duration(self._spoken - self._begun)}: {how_it_goes(rows)}")
        return None


def how_it_goes(rows: Sequence[Row]) -> str:
    """One line of a run so far: its reward and metric, its answers, and what is wrong with it."""
    now, before = rows[-WINDOW:], rows[: -5 * WINDOW][-WINDOW:]
    pieces = [f"step {rows[-1].get('step')}"]
    for name, label in (("reward/mean", "reward"), ("metric/mean", "metric")):
        if not math.isnan(value := recent(now, name)):
            was = recent(before, name)
            then = "" if math.isnan(was) else f", {was:.3f} {5 * WINDOW} steps ago"
            pieces.append(f"{label} {value:.3f}{then}")
    if not math.isnan(length := recent(now, "length/mean")):
        cut = recent(now, "share/truncated")
        pieces.append(f"answers of {length:.0f} tokens, {percent(cut)} cut")
    wrong = alarms(rows)
    pieces.append(f"alarms: {', '.join(wrong)}" if wrong else "nothing is wrong")
    return "; ".join(pieces)
