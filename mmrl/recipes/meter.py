"""How a recipe shows itself while it works: a live line on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Meter:
    """Context manager, called with (records written, rows left out) after each row.

    How many rows there will be is not known while they stream, so the bar counts up.
    """

    def __init__(self, name: str, console: Console | None = None) -> None:
        console = console or Console(file=sys.stderr)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn(f"[bold]{name}"),
            TextColumn("{task.completed:,.0f} records"),
            TextColumn("{task.fields[left_out]:,} left out"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=None, left_out=0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, records: int, left_out: int) -> None:
        self._bar.update(self._task, completed=records, left_out=left_out)
