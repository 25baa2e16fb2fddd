"""What `tools/family_survey.py` found of every type of model, as `mmrl families --all` lists it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("survey.json")


def rows() -> list[dict[str, Any]]:
    """What was found of each type."""
    found: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["types"]
    return found


def listing(*, as_json: bool) -> str:
    """Every type with its verdict and remark, as text or as the survey's own JSON."""
    text = FILE.read_text(encoding="utf-8")
    if as_json:
        return text.rstrip()
    found: dict[str, Any] = json.loads(text)
    types = found["types"]
    lines = [f"{r['type']:24} {r['verdict']:10} {_remark(r)}".rstrip() for r in types]
    counts = Counter(row["verdict"] for row in types)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    return "\n".join([*lines, f"transformers {found['transformers']}: {len(types)} types, {told}"])


def _remark(row: dict[str, Any]) -> str:
    takes = ", ".join(kind for kind in row["takes"] if kind != "screenshot")
    return f"{takes}{': ' if takes and row['why'] else ''}{row['why']}"
