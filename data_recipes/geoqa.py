"""GeoQA (Chen et al., 2021) as R1-V takes it: geometry with a figure, a measure as answer.

Two layouts: leonardPKU/GEOQA_R1V_Train_8K's parquet files (`image`, `problem`, `solution` such as
`<answer> 145° </answer>`), and the lines of R1-V's test (`image_path`, `question`, `ground_truth`)
with the pictures at those paths, or in `images/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source, embedded, split_of
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="geoqa",
    summary="geometry with a figure, a measure as answer",
    task="geometry3k",
    license="not stated",
    hub="leonardPKU/GEOQA_R1V_Train_8K",
    url="https://github.com/Deep-Agent/R1-V",
    layout="data/*.parquet, or *.jsonl of R1-V's test with its pictures",
)


def rows(source: Source) -> Rows:
    """The rows of the parquet files, which are for training, and those of the test's lines."""
    files = source.find("data/*.parquet", "*.parquet")
    for file in files:
        for number, row in enumerate(source.rows(file)):
            yield split_of(file), {"id": f"{file.stem}-{number}", **row}
    for file in source.find("*.jsonl") if files else source.need("*.jsonl"):
        for number, row in enumerate(source.rows(file)):
            yield "test", {"id": f"{file.stem}-{number}", **row}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`problem` behind its picture's place, `answer`, `images`."""
    if "image_path" in raw:
        image = source.locate(raw["image_path"], "", "images")
        problem, answer = raw["question"], str(raw["ground_truth"])
    else:
        image = embedded(raw["image"])
        problem = raw["problem"]
        answer = str(raw["solution"]).replace("<answer>", "").replace("</answer>", "")
    return {
        "id": raw["id"],
        "problem": f"<image>{str(problem).replace('<image>', '').strip()}",
        "answer": answer.strip(),
        "images": [image],
    }


build = Recipe(
    about=ABOUT,
    question=("problem",),
    rows=rows,
    convert=convert,
).build
