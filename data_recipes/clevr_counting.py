"""CLEVR counting (Johnson et al., 2017): how many objects, in rendered scenes.

Three layouts: CLEVR's own, `questions/CLEVR_SPLIT_questions.json` with `images/SPLIT/`, of which
the questions whose program ends in `count` are taken; R1-V's parquet files (`image`, `problem`,
`solution`); and R1-V's Super-CLEVR lines (`image_path`, `question`, `ground_truth`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.medium import LeftOut
from mmrl.recipes.raw_folder import Source, embedded
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="clevr_counting",
    summary="how many objects there are in a rendered scene",
    task="counting",
    license="CC-BY-4.0",
    hub="leonardPKU/clevr_cogen_a_train",
    url="https://cs.stanford.edu/people/jcjohns/clevr/",
    layout="questions/CLEVR_*_questions.json with images/, or data/*.parquet, or *.jsonl",
)


def rows(source: Source) -> Rows:
    """Counting questions of CLEVR's files, else the rows of R1-V's."""
    files = source.find("questions/CLEVR_*_questions.json")
    for file in files:
        split = file.stem.split("_")[1]
        for row in source.array(file, "questions"):
            if not row.get("program"):
                raise source.missing(f"program in {file.name}: answers are not public there")
            if row["program"][-1].get("function", row["program"][-1].get("type")) == "count":
                yield split, row
            else:
                source.skipped["questions that are not counts"] += 1
    if not files:
        for file in source.need("data/*.parquet", "*.parquet", "*.jsonl"):
            split = "train" if "train" in file.stem else "test"
            for number, row in enumerate(source.rows(file)):
                yield split, {"id": f"{file.stem}-{number}", **row}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`image`, `problem` and `solution`."""
    if "image_filename" in raw:
        image = source.medium("images", raw["split"], raw["image_filename"])
        id = f"{raw['split']}-{raw['question_index']}"
        problem, solution, origin = raw["question"], raw["answer"], "CLEVR"
    elif "image_path" in raw:
        image = source.locate(raw["image_path"], "", "images")
        id, origin = raw["id"], "Super-CLEVR"
        problem, solution = raw["question"], raw["ground_truth"]
    else:
        image, id, origin = embedded(raw["image"]), raw["id"], "CLEVR-CoGenT"
        problem, solution = raw["problem"], raw["solution"]
    if not str(problem).strip():
        raise LeftOut("empty question")
    return {
        "id": id,
        "image": image,
        "problem": problem,
        "solution": str(solution),
        "source": origin,
    }


build = Recipe(
    about=ABOUT,
    question=("problem",),
    rows=rows,
    convert=convert,
    training=("train", "trainA"),
).build
