"""The command that shows a run while it trains, from its folder alone."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmrl.commands.output import Commands, command, show
from mmrl.errors import ConfigError

BARS = "▁▂▃▄▅▆▇█"


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "watch", "show how a run is going, until it ends")
    parser.add_argument("run", type=Path)
    parser.add_argument("--once", action="store_true", help="show it once")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="between looks")
    parser.set_defaults(command=_watch)


def _watch(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    run: Path = arguments.run
    if not run.is_dir():
        raise ConfigError(f"no run folder at {run}")
    if arguments.once or arguments.json or not Console().is_terminal:
        seen = look(run)
        show(arguments, seen["lines"], seen)
        return
    with Live(auto_refresh=False) as live:
        while True:
            seen = look(run)
            live.update(Text("\n".join(seen["lines"])), refresh=True)
            if seen["ended"]:
                return
            time.sleep(arguments.every)


def look(run: Path) -> dict[str, Any]:
    """What a run folder says of its run: its step, how it goes, its alarms, if it has ended."""
    from mmrl.runlog.diagnosis import alarms
    from mmrl.runlog.health import how_it_goes
    from mmrl.runlog.journal import Journal
    from mmrl.runlog.rows import series

    rows = list(Journal(run / "metrics.jsonl").rows())
    total = _steps(run / "config.yaml")
    ended = (run / "result.json").is_file()
    if not rows:
        return {"step": 0, "steps": total, "alarms": {}, "ended": ended, "lines": ["no step yet"]}
    step = int(rows[-1]["step"])
    left = "" if ended or not total else f", {_left(rows, total - step)} left"
    lines = [f"{run}: step {step} of {total or '?'}{', ended' if ended else left}"]
    for name in ("reward/mean", "metric/mean", "length/mean", "train/entropy", "train/grad_norm"):
        values = [value for _, value in series(rows, name)]
        if values:
            lines.append(f"  {name:16}{sparkline(values)} {values[-1]:.4g}")
    wrong = alarms(rows)
    lines += [how_it_goes(rows), *(f"alarm '{name}': {line}" for name, line in wrong.items())]
    return {"step": step, "steps": total, "alarms": wrong, "ended": ended, "lines": lines}


def sparkline(values: Sequence[float]) -> str:
    """At most 40 bars of equal spans of the values, lowest to highest."""
    width = min(len(values), 40)
    bounds = [len(values) * i // width for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(bounds)]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def _left(rows: Sequence[Mapping[str, Any]], steps: int) -> str:
    from statistics import median

    from mmrl.runlog.progress import duration
    from mmrl.runlog.rows import series

    seconds = [value for _, value in series(rows[-20:], "time/step")]
    return duration(median(seconds) * max(steps, 0)) if seconds else "an unknown time"


def _steps(path: Path) -> int:
    """Steps of all phases of a written configuration; 0 where that cannot be said."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        own = config["trainer"]["steps"]
        phases = config.get("phases") or [{}]
        return sum(int((phase.get("trainer") or {}).get("steps", own)) for phase in phases)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError):
        return 0
