r"""MATH (Hendrycks et al., 2021): competition mathematics, solved step by step.

Three layouts: the archive's `MATH/{train,test}/SUBJECT/N.json` (`problem`, `level`, `type`,
`solution`, which boxes its answer); the hub's `SUBJECT/SPLIT-*.parquet` of the same columns
(EleutherAI/hendrycks_math); and MATH-500's `test.jsonl` (HuggingFaceH4/MATH-500: `problem`,
`answer`, `subject`, `level`, `unique_id`). Key steps are what the solution arrives at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source, split_of
from mmrl.recipes.recipe import About, Recipe, Rows
from mmrl.recipes.solution_steps import of_solution
from mmrl.rewards.braces import closing_brace

ABOUT = About(
    name="hendrycks_math",
    summary="competition mathematics, a formula as answer",
    task="math",
    license="MIT",
    hub="EleutherAI/hendrycks_math",
    url="https://github.com/hendrycks/math",
    layout="{train,test}/SUBJECT/N.json, or SUBJECT/*.parquet, or MATH-500's test.jsonl",
)
_BOX = "\\boxed{"


def rows(source: Source) -> Rows:
    """Problems by subject and number, else the rows of the hub's files."""
    problems = source.find("*/*/[0-9]*.json", "*/*/*/[0-9]*.json")
    for file in sorted(problems, key=lambda f: (f.parent, len(f.stem), f.stem)):
        split, subject = file.parts[-3:-1]
        yield split, {"id": f"{split}-{subject}-{file.stem}", **json.loads(source.text(file))}
    if not problems:
        for file in source.need("*/*.parquet", "test.jsonl"):
            split = split_of(file)
            for number, row in enumerate(source.rows(file)):
                subject = "" if file.suffix == ".jsonl" else f"{file.parent.name}-"
                yield split, {"id": f"{split}-{subject}{number}", **row}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`problem`, `answer`, `level`, `type` and `key_steps`."""
    answer = raw.get("answer") or boxed(str(raw["solution"]))
    return {
        "id": raw["id"],
        "problem": raw["problem"],
        "answer": answer,
        "level": str(raw["level"]).removeprefix("Level "),
        "type": raw.get("type") or raw.get("subject"),
        "key_steps": of_solution(raw.get("solution")),
    }


def boxed(solution: str) -> str:
    """What the last box of a solution holds; without one, ValueError."""
    at = solution.rfind(_BOX)
    end = closing_brace(solution, at + len(_BOX)) if at >= 0 else -1
    if end < 0:
        raise ValueError("the solution boxes no answer")
    return solution[at + len(_BOX) : end]


build = Recipe(
    about=ABOUT,
    question=("problem",),
    rows=rows,
    convert=convert,
).build
