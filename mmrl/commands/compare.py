"""The command that compares two runs or two evaluations, record by record."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmrl.commands.output import Commands, command, show


def add(commands: Commands) -> None:
    """Add the command of this file."""
    parser = command(
        commands,
        "compare",
        "compare two runs or two evaluations of the same records",
        epilog="An evaluation is a file of `mmrl eval --out`; a run is its folder, by what it "
        "evaluated at its end.",
    )
    parser.add_argument("first", type=Path, metavar="RUN_OR_EVAL")
    parser.add_argument("second", type=Path, metavar="RUN_OR_EVAL")
    parser.add_argument(
        "--page", type=Path, metavar="FILE.html", help="write a page of two runs, too"
    )
    parser.set_defaults(command=_compare)


def _compare(arguments: argparse.Namespace) -> None:
    from mmrl.evaluate.comparison import AFTER, compare

    if arguments.page is None:
        found = compare(arguments.first, arguments.second)
        show(arguments, found.lines(), found.to_json())
        return
    from mmrl.report.comparison_page import write_comparison

    # Runs that evaluated nothing at their end, or other records, still have curves to compare.
    evaluated = all((run / AFTER).is_file() for run in (arguments.first, arguments.second))
    numbers = compare(arguments.first, arguments.second) if evaluated else None
    words = numbers.lines() if numbers else ["one of the runs evaluated nothing at its end"]
    page = write_comparison(arguments.first, arguments.second, arguments.page, words)
    value = {"page": str(page), **({"held_out": numbers.to_json()} if numbers else {})}
    show(arguments, [*words, f"page: {page}"], value)
