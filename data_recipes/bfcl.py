"""Berkeley Function Calling Leaderboard (Patil et al.): its single-turn Python categories.

Layout of ShishirPatil/gorilla, `bfcl_eval/data/`: `BFCL_v4_CATEGORY.json` (json lines) with `id`,
`question`, `function`, and `possible_answer/` of the same names with `ground_truth`. The hub has
version 3 in the same form. Categories of other languages, of several turns, or that run code are
passed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmrl.recipes.medium import LeftOut
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="bfcl",
    summary="function calls in one turn, or none where no function fits",
    task="tool_calls",
    license="Apache-2.0",
    hub="gorilla-llm/Berkeley-Function-Calling-Leaderboard",
    url="https://github.com/ShishirPatil/gorilla",
    layout="BFCL_v*_CATEGORY.json with possible_answer/ beside them",
)
CATEGORIES = (
    "simple", "simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance",
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple", "live_irrelevance",
)  # fmt: skip


def rows(source: Source) -> Rows:
    """The records of every category that the task grades, with their answers."""
    for file in source.need("BFCL_v*.json", "*/data/BFCL_v*.json", "bfcl_eval/data/BFCL_v*.json"):
        category = file.stem.split("_", 2)[2]
        if category not in CATEGORIES:
            source.skipped[f"files of category {category}"] += 1
            continue
        answers_file = file.parent / "possible_answer" / file.name
        answers = {}
        if answers_file.is_file():
            answers = {row["id"]: row["ground_truth"] for row in _lines(source, answers_file)}
        for row in _lines(source, file):
            yield "test", {**row, "ground_truth": answers.get(row["id"])}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The record; without an answer only where the right answer is to call nothing."""
    if raw["ground_truth"] is None and "irrelevance" not in raw["id"]:
        raise LeftOut("no possible answer")
    return raw if raw["ground_truth"] is not None else {**raw, "ground_truth": []}


def _lines(source: Source, path: Any) -> Any:
    """Json lines, whatever the file's ending says."""
    source.used[path] = None
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


build = Recipe(
    about=ABOUT,
    question=("question", "function"),
    rows=rows,
    convert=convert,
    training=(),
).build
