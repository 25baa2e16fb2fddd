"""What a command prints: lines for people, or one JSON value with `--json`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from mmrl.errors import MediaError, UserError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def command(commands: Commands, name: str, said: str, **options: Any) -> argparse.ArgumentParser:
    """A subparser with the flag that all commands have."""
    parser = commands.add_parser(name, help=said, **options)
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    return parser


def overridable(parser: argparse.ArgumentParser) -> None:
    """The two arguments of a command that works on a configuration."""
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="configuration overrides")


def show(arguments: argparse.Namespace, lines: Iterable[str], value: Any) -> None:
    """Print the lines, or the value as JSON (numpy, dataclasses and paths as JSON knows them)."""
    if arguments.json:
        from mmrl.runlog.journal import plain

        print(json.dumps(plain(value), indent=1, ensure_ascii=False))
    else:
        print("\n".join(lines), flush=True)


def show_error(arguments: argparse.Namespace, error: UserError | MediaError) -> None:
    """Print a mistake as JSON where that was asked for."""
    if getattr(arguments, "json", False):
        print(json.dumps({"error": str(error), "kind": type(error).__name__}))
