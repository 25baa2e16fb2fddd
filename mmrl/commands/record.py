"""The command that asks other packages' environments what their episodes begin with."""

from __future__ import annotations

import argparse
import sys

from mmrl.commands.output import Commands, command, overridable, show


def add(commands: Commands) -> None:
    """Add the command of this file."""
    parser = command(
        commands,
        "record",
        "write the records of a task whose environments another package plays",
        epilog="The first call of every episode is written to data.path, of the next ones to "
        "data.eval_path; no model is loaded.",
    )
    overridable(parser)
    parser.add_argument("--train", type=int, default=256, help="episodes for data.path")
    parser.add_argument("--test", type=int, default=64, help="episodes for data.eval_path")
    parser.set_defaults(command=_record)


def _record(arguments: argparse.Namespace) -> None:
    from mmrl.config import load_config
    from mmrl.environments.recording import record
    from mmrl.errors import UserError
    from mmrl.rewards.custom import load_callable
    from mmrl.scoring.tasks import load_task

    data = load_config(arguments.config, arguments.overrides).data[0]
    task = load_task(data.task, data.params)
    if not task.hosting:
        raise UserError(f"task '{data.task}' reads records: mmrl data makes those")
    hosting = load_callable(task.hosting, "hosting")(task)
    first, written = 0, {}
    for path, count in ((data.path, arguments.train), (data.eval_path, arguments.test)):
        if path is None or not count:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        written[str(path)] = record(hosting, path, range(first, first + count))
        print(f"{path}: {written[str(path)]} episodes", file=sys.stderr)
        first += count
    lines = [f"{path}: {count} records" for path, count in written.items()]
    show(arguments, lines, {"written": written})
