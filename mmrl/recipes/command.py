"""`mmrl data`: list the recipes, carry one out, or check what one wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from mmrl import plugins
from mmrl.errors import UserError
from mmrl.recipes.manifest import verify
from mmrl.recipes.meter import meter
from mmrl.recipes.settings import Options

_REASONS_SHOWN = 5


def listing() -> Iterator[str]:
    """A line for each recipe: name, task, licence, and where its raw data are."""
    for name in sorted(plugins.available("recipe")):
        try:
            about = plugins.load("recipe", name).ABOUT
        except ImportError as error:
            yield f"{name:22} needs the package {error.name}"
            continue
        license = shorten(about.license, 28, placeholder=" ...")
        yield f"{name:22} {about.task:24} {license:28} {about.hub or about.url}".rstrip()


def rows() -> list[dict[str, Any]]:
    """What `listing` lists, as data; a recipe whose package is absent has its name only."""
    found = []
    for name in sorted(plugins.available("recipe")):
        try:
            found.append({"name": name, **about(name)})
        except ImportError as error:
            found.append({"name": name, "needs": error.name})
    return found


def about(name: str) -> dict[str, Any]:
    """What `describe` tells, as data."""
    return asdict(plugins.load("recipe", name).ABOUT)


def describe(name: str) -> str:
    """What a recipe is, and the folder that it wants."""
    about = plugins.load("recipe", name).ABOUT
    lines = [
        f"{name}: {about.summary}",
        f"task     {about.task}",
        f"licence  {about.license}",
        f"hub      {about.hub or '-'}",
        f"source   {about.url}",
        f"layout   {about.layout or '-'}",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Done:
    """What became of the rows, in lines and as the manifest's facts."""

    lines: tuple[str, ...]
    facts: Mapping[str, Any]


def carry_out(name: str, source: Path | None, out: Path, seed: int, options: Options) -> Done:
    """Run a recipe under a progress line."""
    module = plugins.load("recipe", name)
    if not module.ABOUT.layout:
        if options != Options():
            raise UserError(f"recipe '{name}' makes its data: only --out and --seed apply")
        module.build(source, out, seed=seed)
        return Done((str(out),), {})
    with meter(name) as on_record:
        facts = module.build(source, out, seed=seed, options=options, on_record=on_record)
    return Done(tuple(_summary(out, facts, options)), facts)


def check(out: Path) -> str:
    """Compare a folder with its manifest; a difference raises UserError with the first few."""
    found = verify(out)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(f"{out}: {'; '.join(found[:3])}{more}")
    return f"{out}: every file is as its manifest says"


def _summary(out: Path, facts: Mapping[str, Any], options: Options) -> Iterator[str]:
    for split, number in facts["records"].items():
        yield f"{out / f'{split}.jsonl'}  {number} records"
    left_out = facts["left_out"]
    if left_out:
        yield f"left out {sum(left_out.values())}, see {out / 'left_out.jsonl'}:"
        for reason, number in list(left_out.items())[:_REASONS_SHOWN]:
            yield f"  {number} x {reason}"
    for reason, number in facts["skipped"].items():
        yield f"skipped {number} {reason}"
    for split, number in facts["repeated_questions"].items():
        yield f"repeated questions in {split}: {number}"
    for pair, kinds in facts["shared"].items():
        counts = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
        yield f"shared, {pair}: {counts}"
    if facts["difficulty"]:
        yield f"pass rates: {facts['difficulty']['rated']} records rated"
