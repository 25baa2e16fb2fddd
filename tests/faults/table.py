"""The tables of docs/reliability.md, from what was tried."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from tests.faults.kills import Outcome
from tests.faults.subjects import SUBJECTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
OUTCOMES = Path(__file__).with_name("outcomes.json")
BETWEEN = re.compile(r"(?<=<!-- tried -->\n).*?(?=<!-- end -->)", re.DOTALL)
ABOUT = {subject.name: subject.summary for subject in SUBJECTS}


def known() -> list[Outcome]:
    """The outcomes that were written last."""
    return [Outcome(**row) for row in json.loads(OUTCOMES.read_text())["outcomes"]]


def rows(outcomes: Sequence[Outcome]) -> str:
    """The table in Markdown."""
    right = sum(outcome.tried for outcome in outcomes if outcome.right)
    kills = sum(outcome.tried for outcome in outcomes if outcome.fault.startswith("kill -9"))
    tries = sum(outcome.tried for outcome in outcomes)
    lines = [
        f"{tries} tries, {kills} of them kills: {right} ended as promised ({right / tries:.0%}).",
        "",
        "| fault | of a run | tries | outcome |",
        "|---|---|---|---|",
    ]
    about = {**ABOUT, "zero2": "two processes under ZeRO-2"}
    for one in outcomes:
        # What kind of run it is stands where it comes first.
        told = f": {about.pop(one.subject)}" if one.subject in about else ""
        outcome = one.outcome if one.right else f"**wrong**: {one.outcome}"
        lines.append(f"| {one.fault} | `{one.subject}`{told} | {one.tried} | {outcome} |")
    return "\n".join(lines) + "\n"


def write_page(outcomes: Sequence[Outcome]) -> None:
    """Put the table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BETWEEN.sub(lambda _: rows(outcomes), page), encoding="utf-8")
