"""BlindTest (Rahmanzadehgervi et al., 2024): circles, lines, letters and grids, plain to people.

Layout of XAI/vlmsareblind: parquet files of `image`, `task`, `prompt`, `groundtruth`, `metadata`.
What a prompt says of curly brackets is taken out, since the task asks for its own form. By task:
yes or no (touching circles), a letter, `rows,columns` of a grid, else a count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source, embedded
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="blind_test",
    summary="circles, lines, letters and grids that are plain to people",
    task="vqa_mix",
    license="MIT",
    hub="XAI/vlmsareblind",
    url="https://github.com/anguyen8/vision-llms-are-blind",
    layout="data/*.parquet",
)
_EXAMPLE = re.compile(r",?\s*(?:e\.g\.|[Ff]or example),?[^{}]{0,40}\{[^{}]{0,10}\}.{0,60}$")
_BRACKETS = re.compile(r"(?:\s+with numbers?)?\s+in curly (?:brackets|braces)")
GRID = " Answer with rows,columns."


def rows(source: Source) -> Rows:
    """The rows of the files, numbered."""
    for split, file in source.shards("data", "."):
        for number, row in enumerate(source.rows(file)):
            yield split, {"id": f"{file.stem}-{number}", **row}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`problem`, `problem_type`, `solution`, `image`."""
    task, truth = str(raw["task"]), str(raw["groundtruth"]).strip()
    asked = _BRACKETS.sub("", _EXAMPLE.sub("", str(raw["prompt"]).strip()))
    grid = task.lower().startswith("counting grid")
    if truth.lower() in ("yes", "no"):
        kind, truth = "yes/no", truth.capitalize()
    elif grid or not truth.isdigit():
        kind = "OCR"
    else:
        kind = "numerical"
    return {
        "id": raw["id"],
        "image": embedded(raw["image"]),
        "problem": f"<image>{asked}{GRID if grid else ''}",
        "problem_type": kind,
        "solution": truth,
        "source": task,
    }


build = Recipe(
    about=ABOUT,
    question=("problem",),
    rows=rows,
    convert=convert,
    training=(),
).build
