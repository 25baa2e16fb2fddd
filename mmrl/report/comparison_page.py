"""Two runs on one page: what was set otherwise, their curves, what each said to the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mmrl.errors import UserError
from mmrl.report import charts
from mmrl.report.cards import Card, card_of, visible
from mmrl.report.charts import Chart, Line
from mmrl.report.curves import Curve, curve_of, is_drawn, unit_of
from mmrl.report.folder import RunFolder, read_run
from mmrl.report.rendering import MAX_BYTES, assets, environment, fitting, write_whole
from mmrl.report.results import answers_of

FIRST = ("reward/mean", "metric/mean", "length/mean", "train/entropy", "train/kl", "time/step")
MAX_PAIRED = 4000  # groups of each run that are looked through, the newest
MAX_ROWS = 60  # settings, and records that came out otherwise
OPEN_CURVES = 9  # shown at once
UNSET = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Changed:
    """A record whose metric differs at the end: both numbers, both answers."""

    id: str
    metrics: tuple[float, float]
    texts: tuple[str, str]


def write_comparison(first: Path, second: Path, out: Path, words: Sequence[str]) -> Path:
    """Write the page of two run folders; `words` say how their held-out numbers compare.

    Raises UserError where one is no run folder.
    """
    for run in (first, second):
        if not (run / "config.yaml").is_file():
            raise UserError(f"{run} is no run folder: --page compares two of them")
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(out, render(first, second, words))


def render(first: Path, second: Path, words: Sequence[str] = (), max_bytes: int = MAX_BYTES) -> str:
    """Render the page; pairs of groups are sampled so that it stays under `max_bytes`."""
    runs = read_run(first), read_run(second)
    names = names_of(first, second)
    page = environment().get_template("comparison.html.j2")
    curves = common_curves(runs, names)
    changed = list(changed_records(*(run.evals["after"] for run in runs)))
    context: dict[str, Any] = {
        **assets(),
        "kicker": "mmrl comparison",
        "title": " | ".join(names),
        "facts": [("First", str(first)), ("Second", str(second))],
        "state": "",
        "names": names,
        "words": words,
        "settings": list(differing(*(run.config for run in runs)))[:MAX_ROWS],
        "curves": [curves[:OPEN_CURVES], curves[OPEN_CURVES:]],
        "changed": changed[:MAX_ROWS],
        "total_changed": len(changed),
    }
    bare = visible(page.render(context, cards=[], total=0))
    pairs = _pairs(*runs)
    macro = environment().get_template("record.html.j2").module.pair  # type: ignore[attr-defined]
    cards = fitting(
        len(pairs),
        lambda index: Markup(macro(_cards(runs, pairs[index]), names)),
        max_bytes - len(bare.encode("utf-8", "replace")),
    )
    return visible(page.render(context, cards=[card for _, card in cards], total=len(pairs)))


def names_of(first: Path, second: Path) -> tuple[str, str]:
    """Names that tell two paths apart: the last parts in which they differ, and what follows."""
    one, two = first.resolve().parts, second.resolve().parts
    for count in range(1, max(len(one), len(two)) + 1):
        if one[-count:] != two[-count:]:
            return "/".join(one[-count:]), "/".join(two[-count:])
    return one[-1], two[-1]


def differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Settings that two configurations have otherwise, with both values."""
    first, second = dict(_flat(one)), dict(_flat(two))
    for name in dict.fromkeys([*first, *second]):
        values = first.get(name, UNSET), second.get(name, UNSET)
        if values[0] != values[1]:
            yield name, *values


def _flat(config: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(config, dict | list) and config:
        pairs = config.items() if isinstance(config, dict) else enumerate(config)
        for key, value in pairs:
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    elif name:
        yield name, str(config)


def common_curves(runs: Sequence[RunFolder], names: Sequence[str]) -> list[Curve]:
    """A chart for each metric that both runs wrote, the ones most looked at first."""
    written = [dict.fromkeys(str(key) for row in run.metrics for key in row) for run in runs]
    shared = [key for key in written[0] if key in written[1] and key not in ("step", "phase")]
    ordered = [*(k for k in FIRST if k in shared), *(k for k in shared if k not in FIRST)]
    found = []
    for key in ordered:
        lines = [charts.line(run.metrics, key, name) for run, name in zip(runs, names, strict=True)]
        drawn: list[Line] = [line for line in lines if line is not None]
        chart = Chart(key, "", tuple(drawn), unit_of(key))
        if len(drawn) == len(runs) and is_drawn(chart):
            found.append(curve_of(chart))
    return found


def changed_records(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Changed]:
    """Records of two evaluations whose metrics differ, those that changed most first."""
    first, second = answers_of(one), answers_of(two)
    found = [
        Changed(name, (first[name][0], second[name][0]), (first[name][1], second[name][1]))
        for name in first
        if name in second and first[name][0] != second[name][0]
    ]
    return iter(sorted(found, key=lambda each: -abs(each.metrics[1] - each.metrics[0])))


def _pairs(one: RunFolder, two: RunFolder) -> list[tuple[int, int]]:
    """Lines of both runs about the same record, the last of each; in the order of the first."""
    first, second = _places(one), _places(two)
    return [(first[name], second[name]) for name in first if name in second]


def _places(run: RunFolder) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    start = max(len(run.rollout_lines) - MAX_PAIRED, 0)
    for index in range(start, len(run.rollout_lines)):
        row = run.rollout(index)
        if row is not None:
            found[str(row.get("id")), str(row.get("variant"))] = index
    return found


def _cards(runs: Sequence[RunFolder], places: Sequence[int]) -> list[Card]:
    rows = [run.rollout(place) or {} for run, place in zip(runs, places, strict=True)]
    return [card_of(row, run.path) for row, run in zip(rows, runs, strict=True)]
