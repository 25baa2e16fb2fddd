"""TRANCE (Hong et al., CVPR 2021) as Reason-RFT takes it: which changes lead to the second view.

Rows of tanhuajie2001/Reason-RFT-CoT-Dataset: `id`, `image` (a path, or a list of both views'),
`problem` with a place for each, `solution` of calls such as `change_color(0, 'red')`, as json lists
or lines. Files that name TRANCE are read, else all; the split is the file's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="trance",
    summary="which transformations lead from one view of a scene to the next",
    task="trance",
    license="Apache-2.0",
    hub="tanhuajie2001/Reason-RFT-CoT-Dataset",
    url="https://github.com/tanhuajie/Reason-RFT",
    layout="json lists or lines of id, image, problem, solution, and the pictures",
)


def rows(source: Source) -> Rows:
    """The rows of each file."""
    above = ("", "*/")
    named = [f"{a}*{n}*.json*" for n in ("[Tt]rance", "TRANCE") for a in above]
    for file in source.need(*named, *(f"{a}*.json*" for a in above)):
        for number, row in enumerate(source.rows(file)):
            yield file.stem, {"place": f"{file.stem}-{number}", **row}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`images`, `problem` with a place for each, `solution`."""
    given = raw["image"]
    paths = given if isinstance(given, list) else [given]
    views = [source.locate(str(path).removeprefix("./"), "", "images") for path in paths]
    problem = str(raw["problem"])
    missing = len(views) - problem.count("<image>")
    return {
        "id": raw["place"],
        "images": views,
        "problem": "<image>" * max(missing, 0) + problem,
        "solution": raw["solution"],
    }


build = Recipe(
    about=ABOUT,
    question=("problem",),
    rows=rows,
    convert=convert,
    training=("train",),
).build
