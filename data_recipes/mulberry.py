"""Mulberry's questions with R1-VL's key steps (Zhang et al., ICCV 2025), for StepGRPO.

Rows of R1-VL's training: `image_path`, `problem`, `solution`, `key_steps` (`{"Steps": [phrase, or
alternatives]}`), as json lists, lines or parquet files, with the pictures at those paths. Answers
that are a formula, a number or a letter become records; others are left out, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source, split_of
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="mulberry",
    summary="mixed visual reasoning, with key steps to be paid",
    task="geometry3k",
    license="Apache-2.0 (questions and steps); pictures have their sources' licences",
    hub="HuanjinYao/Mulberry-SFT",
    url="https://github.com/jingyi0000/R1-VL",
    layout="*.json, *.jsonl or *.parquet of image_path, problem, solution, key_steps; pictures",
)


def rows(source: Source) -> Rows:
    """The rows of each file."""
    for file in source.need("*.json", "*.jsonl", "*.parquet", "data/*.parquet"):
        for number, row in enumerate(source.rows(file)):
            yield split_of(file), {"id": f"{file.stem}-{number}", **row}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`problem` behind its picture's place, `answer`, `key_steps`, `images`."""
    steps = raw["key_steps"]
    steps = json.loads(steps) if isinstance(steps, str) else steps
    answer = str(raw["solution"]).replace("<answer>", "").replace("</answer>", "")
    return {
        "id": raw["id"],
        "problem": f"<image>{str(raw['problem']).replace('<image>', '').strip()}",
        "answer": answer.strip(),
        "key_steps": steps["Steps"] if isinstance(steps, dict) else steps,
        "images": [source.locate(str(raw["image_path"]).removeprefix("./"), "", "images")],
    }


build = Recipe(
    about=ABOUT,
    question=("problem",),
    rows=rows,
    convert=convert,
).build
