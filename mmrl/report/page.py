"""Put the page together under a size cap and write it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mmrl.errors import UserError
from mmrl.report.cards import card_of, visible
from mmrl.report.curves import main_curves, other_curves
from mmrl.report.folder import RunFolder, read_run
from mmrl.report.rendering import MAX_BYTES, assets, environment, fitting, write_whole
from mmrl.report.results import results_of
from mmrl.runlog.diagnosis import diagnose
from mmrl.runlog.progress import duration
from mmrl.runlog.rows import finite

MAX_CONFIG = 40_000  # characters


def write_report(run: Path, refresh: int = 0) -> Path:
    """Write `report.html` into a run folder, unfinished or empty ones too; return its path.

    `refresh`: a browser that shows it loads it again every so many seconds; 0: never.
    """
    if not run.is_dir():
        raise UserError(f"no run folder at {run}")
    return write_whole(run / "report.html", render(run, refresh=refresh))


def write_until_it_ends(
    run: Path, seconds: int, sleep: Callable[[float], None] = time.sleep
) -> Path:
    """Write the report of a run again and again until the run has ended; return its path."""
    while not (run / "result.json").is_file():
        write_report(run, refresh=seconds)
        sleep(seconds)
    return write_report(run)


def render(run: Path, *, max_bytes: int = MAX_BYTES, refresh: int = 0) -> str:
    """Render the page; groups are sampled so that it stays under `max_bytes`."""
    folder = read_run(run)
    page = environment().get_template("page.html.j2")
    context: dict[str, Any] = {
        **_headline(folder),
        "refresh": refresh,
        "results": results_of(folder.evals, folder.result),
        "diagnosis": diagnose(
            folder.metrics,
            max_new_tokens=_max_new_tokens(folder.config),
            held_out=folder.evals["after"],
        ),
        "curves": main_curves(folder.metrics),
        "others": other_curves(folder.metrics),
        "quarantine": folder.quarantine,
        "quarantine_counts": folder.quarantine_counts,
        "config": folder.config_text[:MAX_CONFIG],
        "total": len(folder.rollout_lines),
        **assets(),
    }
    bare = visible(page.render(context, cards=[], steps=[], tasks=[], broken=0))
    shown, broken = _cards(folder, max_bytes - len(bare.encode("utf-8", "replace")))
    full = page.render(
        context,
        cards=[markup for _, _, markup in shown],
        steps=sorted({step for step, _, _ in shown}),
        tasks=sorted({task for _, task, _ in shown if task}),
        broken=broken,
    )
    return visible(full)


def _cards(folder: RunFolder, budget: int) -> tuple[list[tuple[int, str, Markup]], int]:
    """Render the sampled groups in file order; also count the lines that cannot be read."""
    macro = environment().get_template("card.html.j2").module.card  # type: ignore[attr-defined]
    broken: list[int] = []
    steps: dict[int, tuple[int, str]] = {}

    def card(index: int) -> Markup | None:
        row = folder.rollout(index)
        if row is None:
            broken.append(index)
            return None
        made = card_of(row, folder.path)
        steps[index] = (made.step, made.task)
        return Markup(macro(made, index))

    shown = fitting(len(folder.rollout_lines), card, budget)
    return [(*steps[index], markup) for index, markup in shown], len(broken)


def _max_new_tokens(config: Mapping[str, Any]) -> int | None:
    """That of the last phase, which the diagnosis is about."""
    last = _listed(config)[-1:]
    rollout = {k: v for part in (config, *last) for k, v in _section(part, "rollout").items()}
    found = finite(rollout.get("max_new_tokens"))
    return None if found is None else int(found)


def _headline(folder: RunFolder) -> dict[str, Any]:
    """The few facts a reader wants first."""
    config, result = folder.config, folder.result
    spent = finite(result.get("seconds"))
    if spent is None:
        spent = sum(finite(row.get("time/step")) or 0.0 for row in folder.metrics) or None
    seed = result.get("seed", config.get("seed"))
    phases = _phases(config)
    facts = {
        "Task": ", ".join(_tasks(config)),
        "Algorithm": "" if phases else _text(_section(config, "algorithm").get("name")),
        "Phases": ", ".join(phases),
        "Model": _text(_section(config, "model").get("path")),
        "Steps": _progress(folder),
        "Duration": duration(spent) if spent else "",
        "Seed": _text(seed),
    }
    return {
        "kicker": "mmrl run report",
        "title": folder.path.resolve().name,
        "facts": [(name, value) for name, value in facts.items() if value],
        "state": _state(folder),
    }


def _progress(folder: RunFolder) -> str:
    steps = finite(_section(folder.config, "trainer").get("steps"))
    each = [finite(_section(phase, "trainer").get("steps")) for phase in _listed(folder.config)]
    planned = sum(own or steps or 0.0 for own in each) if each else steps
    done = folder.metrics[-1]["step"] if folder.metrics else 0
    return f"{done} of {planned:.0f}" if planned else (str(done) if done else "")


def _state(folder: RunFolder) -> str:
    if folder.result:
        return ""
    if not folder.metrics:
        return "No step has been finished yet."
    return "The run is still going, or stopped before its end."


def _tasks(config: Mapping[str, Any]) -> Sequence[str]:
    data = config.get("data")
    sources = data if isinstance(data, list) else [data]
    return [_text(source.get("task")) for source in sources if isinstance(source, dict)]


def _phases(config: Mapping[str, Any]) -> Sequence[str]:
    """Name every phase with its algorithm."""
    own = _text(_section(config, "algorithm").get("name"))
    return [
        f"{_text(phase.get('name')) or index} "
        f"({_text(_section(phase, 'algorithm').get('name')) or own})"
        for index, phase in enumerate(_listed(config), 1)
    ]


def _listed(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    phases = config.get("phases")
    return [p for p in phases if isinstance(p, dict)] if isinstance(phases, list) else []


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    return "" if value is None else str(value)
