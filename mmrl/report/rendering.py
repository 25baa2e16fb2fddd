"""What every page shares: templates that escape, style and script, cards under a size cap."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mmrl.report import charts
from mmrl.report.cards import order

MAX_BYTES = 10_000_000
MAX_CARDS = 120
MAX_REFUSED = 10  # cards that did not fit, before the page counts as full


@cache
def environment() -> Environment:
    """The templates; whatever is put into them is escaped."""
    made = Environment(
        loader=PackageLoader("mmrl.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = charts.number
    made.filters["signed"] = signed
    return made


def assets() -> Mapping[str, str]:
    """Style and script, with the hash by which the page's policy lets this script run alone."""
    script = environment().get_template("script.js.j2").render()
    return {
        "style": Markup(environment().get_template("style.css.j2").render()),
        "script": Markup(script),
        "script_hash": base64.b64encode(sha256(script.encode()).digest()).decode(),
    }


def fitting(
    count: int, card: Callable[[int], Markup | None], budget: int
) -> list[tuple[int, Markup]]:
    """Cards in order, taken evenly from `count` until `budget` bytes are used; None is left out."""
    found: dict[int, Markup] = {}
    refused = 0
    for index in order(count):
        if len(found) >= MAX_CARDS or refused >= MAX_REFUSED:
            break
        markup = card(index)
        if markup is None:
            continue
        size = len(markup.encode("utf-8", "replace")) + 100  # its share of the filter's options
        if size > budget:
            refused += 1
        else:
            budget -= size
            found[index] = markup
    return [(index, found[index]) for index in sorted(found)]


def write_whole(path: Path, page: str) -> Path:
    """Write a page in one go, so that a reader never meets half of it; returns its path."""
    half = path.with_name(path.name + ".tmp")
    half.write_bytes(page.encode("utf-8", "replace"))
    os.replace(half, path)
    return path


def signed(value: float) -> str:
    """Write a number with its sign: +0.3, -1.2, 0."""
    return f"{'+' if value > 0 else ''}{charts.number(value)}"
