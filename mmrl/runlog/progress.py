"""How a run shows itself while it trains: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

STEPS_FOR_SPEED = 20
SILENT_SECONDS = 20.0  # of a long work, before it says again how far it is


class Progress:
    """Context manager that shows steps, reward, seconds a step and the time left, on stderr."""

    def __init__(self, total: int, *, done: int = 0, console: Console | None = None) -> None:
        self._total = total
        self._console = console or Console(file=sys.stderr)
        self._seconds: deque[float] = deque(maxlen=STEPS_FOR_SPEED)
        self._bar: Bar | None = None
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("[bold]step"),
                MofNCompleteColumn(),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[status]}", markup=False),
                console=self._console,
                expand=True,
            )
            self._task = self._bar.add_task("train", total=total, completed=done, status="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show a finished step (counted from 1)."""
        self._seconds.append(metrics.get("time/step", math.nan))
        status = self._status(step, metrics)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=status)
        else:
            self.say(f"step {step}/{self._total}  {status}")

    def say(self, line: str) -> None:
        """Print a line above the bar; it is shown as it is, markup included."""
        self._console.print(Text(line), soft_wrap=True)

    def _status(self, step: int, metrics: Mapping[str, float]) -> str:
        known = sorted(value for value in self._seconds if math.isfinite(value))
        pieces = [f"reward {metrics.get('reward/mean', math.nan):.3f}"]
        if known:
            typical = known[len(known) // 2]  # the median: one slow evaluation moves no estimate
            pieces.append(f"{self._seconds[-1]:.1f} s/step")
            pieces.append(f"{duration(typical * max(0, self._total - step))} left")
        return "  ".join(pieces)


def now_and_then(
    say: Callable[[str], None],
    what: str,
    total: int,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[int], None]:
    """A listener that says how many of `total` are done, where that takes more than moments."""
    started = spoken = clock()

    def hear(done: int) -> None:
        nonlocal spoken
        now = clock()
        if done < total and now - spoken >= SILENT_SECONDS:
            spoken = now
            left = duration((now - started) / done * (total - done))
            say(f"{done} of {total} {what}, {left} left")

    return hear


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many of a total are done: a bar on a terminal, a line now and then elsewhere."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        listeners: dict[int, Callable[[int], None]] = {}

        def hear(done: int, total: int) -> None:
            if done == 1 or total not in listeners:
                listeners[total] = now_and_then(lambda line: console.print(Text(line)), what, total)
            listeners[total](done)

        yield hear
        return
    with Bar(TextColumn(what), MofNCompleteColumn(), BarColumn(), console=console) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def duration(seconds: float) -> str:
    """Write seconds as people read them: `45 s`, `12 min 5 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
