"""How a recipe shows itself while it works: a live line on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@contextmanager
def meter(name: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """Give a function to call with (records written, rows left out) after each row.

    How many rows there will be is not known while they stream, so the line counts up.
    """
    console = console or Console(file=sys.stderr)
    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        TextColumn("{task.completed:,.0f} records, {task.fields[left_out]:,} left out"),
        TimeElapsedColumn(),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        line = bar.add_task(name, total=None, left_out=0)
        yield lambda records, left_out: bar.update(line, completed=records, left_out=left_out)
