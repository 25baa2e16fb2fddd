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
    parser.set_defaults(command=_compare)


def _compare(arguments: argparse.Namespace) -> None:
    from mmrl.evaluate.comparison import compare

    found = compare(arguments.first, arguments.second)
    show(arguments, found.lines(), found.to_json())
