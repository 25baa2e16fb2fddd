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
    parser, known = _parser()
    words = sys.argv[1:] if argv is None else argv
    if not words:
        parser.print_help(sys.stderr)
        return 2
    if not words[0].startswith("-") and words[0] not in known:
        print(f"mmrl: {_unknown(words[0], known)}", file=sys.stderr)
        return 2
    arguments, rest = parser.parse_known_args(words)
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


def _unknown(word: str, known: Sequence[str]) -> str:
    """Say that there is no such command, and which may have been meant."""
    from mmrl.validation import nearest

    return f"no command '{word}': {nearest(word, known, 'commands')}"


def _parser() -> tuple[argparse.ArgumentParser, Sequence[str]]:
    """The parser, and the names of its commands."""
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
    return parser, tuple(commands.choices)


if __name__ == "__main__":
    sys.exit(main())
