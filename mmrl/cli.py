"""The command line. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmrl import __version__, plugins
from mmrl.commands import (
    catalogues,
    compare,
    papers,
    play,
    rates,
    record,
    runs,
    scores,
    shell,
    watch,
)
from mmrl.commands.output import show_error
from mmrl.errors import MediaError, Terminated, UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; a user's mistake prints one line and returns 2."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    # argparse takes positionals in one run only; overrides may also follow the flags.
    if rest and "overrides" in arguments and not any(word.startswith("-") for word in rest):
        arguments.overrides += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    # A reward or task of the user's own lies beside the configuration, or where the user is.
    if config := getattr(arguments, "config", None):
        plugins.importable_from(config.parent)
    plugins.importable_from(Path.cwd())
    try:
        arguments.command(arguments)
    except (UserError, MediaError) as error:
        print(f"mmrl: {error}", file=sys.stderr)
        show_error(arguments, error)
        return 2
    except Terminated as ended:
        print(f"mmrl: {ended}", file=sys.stderr)
        return int(ended.code or 0)
    except KeyboardInterrupt as error:
        said = str(error) or f"interrupted; {arguments.goes_on}".rstrip("; ")
        print(f"mmrl: {said}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmrl", description="Reinforcement learning for vision-language and audio models."
    )
    parser.add_argument("--version", action="version", version=f"mmrl {__version__}")
    parser.set_defaults(goes_on="")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    runs.add(commands)
    watch.add(commands)
    scores.add(commands)
    rates.add(commands)
    compare.add(commands)
    play.add(commands)
    record.add(commands)
    catalogues.add(commands)
    papers.add(commands)
    shell.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
