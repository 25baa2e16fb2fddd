"""VideoHallu (Li et al., 2025): what a generated video shows against common sense.

Two forms of IntelligenceLab/VideoHallu: test rows (`RowID`, `video_path`, `Prompt`, `Question`,
`Answer`, `Categorization-1`) as csv or lines, and training rows (`problem_id`, `path`, `problem`,
`solution`) as a json list. Questions that are missing, of which the training file has some, are
left out. The names of the files are not relied on: a row's columns say which split it is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.medium import LeftOut
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="videohallu",
    summary="open questions about generated videos, against common sense",
    task="video_hallu",
    license="not stated",
    hub="IntelligenceLab/VideoHallu",
    url="https://github.com/zli12321/VideoHallu",
    layout="*.csv, *.jsonl or *.json of questions, and the videos at their paths",
)
KEPT = ("Prompt", "Question", "Answer", "Categorization-1", "Categorization-2")


def rows(source: Source) -> Rows:
    """The rows of every table."""
    tables = [f for end in ("csv", "jsonl", "json") for f in source.find(f"*.{end}")]
    for file in tables or source.need("*.csv"):
        for number, row in enumerate(source.rows(file)):
            yield (
                ("test" if "Question" in row else "train"),
                {"place": f"{file.stem}-{number}", **row},
            )


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The columns of its form, and the video."""
    test = "Question" in raw
    question = raw["Question"] if test else raw["problem"]
    if not question or not str(question).strip():
        raise LeftOut("no question")
    path = str(raw["video_path"] if test else raw["path"]).removeprefix("./")
    video = source.locate(path, "", "videos")
    if test:
        kept = {key: raw[key] for key in KEPT if raw.get(key) is not None}
        return {"id": str(raw.get("RowID") or raw["place"]), "video_path": video, **kept}
    return {
        "id": raw["place"],
        "path": video,
        "problem": question,
        "solution": raw["solution"],
    }


build = Recipe(
    about=ABOUT,
    question=("Question", "problem"),
    rows=rows,
    convert=convert,
).build
