"""The command that plays one record of a run by hand, or the task's own way."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrl.commands.output import Commands, command, overridable, show

if TYPE_CHECKING:
    from mmrl.task import Task
    from mmrl.types import Sample


def add(commands: Commands) -> None:
    """Add the command of this file."""
    parser = command(
        commands,
        "play",
        "play one record: you write what the model would, turn by turn",
        epilog="A turn ends with an empty line. Places count in pixels of the pictures that are "
        "written out; the run's own environment and scoring workers answer.",
    )
    overridable(parser)
    parser.add_argument("--id", help="which record of the first data source; default: the first")
    parser.add_argument("--oracle", action="store_true", help="let the task itself play, rightly")
    parser.add_argument("--page", type=Path, metavar="FILE.html", help="write what was seen there")
    parser.set_defaults(command=_play)


def _play(arguments: argparse.Namespace) -> None:
    from mmrl.config import load_config
    from mmrl.doctor.preflight import check_run
    from mmrl.evaluate.played_page import write_played
    from mmrl.evaluate.playing import oracle, played

    config = load_config(arguments.config, arguments.overrides)
    check_run(config)
    with tempfile.TemporaryDirectory(prefix="mmrl-play-") as folder:
        writer = oracle if arguments.oracle else _by_hand(Path(folder))
        found = played(config, arguments.id, writer)
    score = found.score
    earned = ", ".join(f"{name} {value:g}" for name, value in score.parts.items())
    lines = [
        f"{found.sample.id}: reward {score.reward if score.reward is not None else 'none'} "
        f"({earned}), {found.task.metric} {score.metric}",
        *([f"{score.status}: {score.reason}"] if score.status != "ok" else []),
    ]
    value: dict[str, Any] = {
        "id": found.sample.id,
        "turns": [*found.answer.turns] or [found.answer.text],
        "reward": score.reward,
        "parts": score.parts,
        "metric": score.metric,
        "status": score.status,
        "reason": score.reason,
    }
    if arguments.page:
        page = write_played(found, arguments.page)
        lines.append(f"page: {page}")
        value["page"] = page
    show(arguments, lines, value)


def _by_hand(folder: Path) -> Callable[[Task], Callable[[Sample], str]]:
    """Show what the model would see, and read what is written for it."""
    from mmrl.evaluate.shown_record import shown

    asked: list[int] = []

    def say(sample: Sample) -> str:
        for line in shown(sample, folder, first=not asked):
            print(line, file=sys.stderr)
        asked.append(1)
        print("> ", end="", file=sys.stderr, flush=True)
        lines: list[str] = []
        for line in sys.stdin:
            if not line.strip() and lines:
                break
            lines += [line.rstrip("\n")] if line.strip() else []
        return "\n".join(lines)

    return lambda task: say
