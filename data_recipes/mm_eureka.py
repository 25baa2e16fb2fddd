"""MM-EUREKA's K12 problems (Meng et al., 2025): school mathematics with figures, LaTeX answers.

Two layouts: FanqingM/MM-Eureka-Dataset, `dataset.jsonl` with `id`, `conversations` (`role`,
`content`), `answer`, `image_urls` and the pictures in `K12/` and `MMPR/` (unpacked from the
zips); or FanqingM/MMK12, `data/*.parquet` with `id`, `question`, `answer`, `subject`, `image`. Of
the first only the K12 part is taken: MMPR holds other data sets' questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from mmrl.recipes.raw_folder import Source, embedded
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="mm_eureka",
    summary="school mathematics with figures",
    task="geometry3k",
    license="Apache-2.0",
    hub="FanqingM/MMK12",
    url="https://github.com/ModalMinds/MM-EUREKA",
    layout="data/*.parquet (MMK12), or dataset.jsonl with K12/ (FanqingM/MM-Eureka-Dataset)",
)


def rows(source: Source) -> Rows:
    """K12 rows of the json lines, else those of the parquet files."""
    files = source.find("dataset.jsonl")
    for file in files:
        for row in source.rows(file):
            if any("K12" in PurePosixPath(url).parts for url in row["image_urls"]):
                yield "train", row
            else:
                source.skipped["rows that are not of K12"] += 1
    if not files:
        for split, file in source.shards("data", "."):
            for row in source.rows(file):
                yield split, row


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`problem` with as many placeholders as there are pictures, `answer`, `images`."""
    if "conversations" in raw:
        turns = raw["conversations"]
        problem = next(turn["content"] for turn in turns if turn["role"] == "user")
        problem = problem.rpartition("Question:")[2].strip()
        names = [PurePosixPath(url).name for url in raw["image_urls"]]
        images = [source.locate(name, "K12") for name in names]
    else:
        problem, images = raw["question"], [embedded(raw["image"])]
    bare = problem.replace("<image>", "").strip()
    fields = {key: raw[key] for key in ("subject",) if key in raw}
    return {
        **fields,
        "id": str(raw["id"]),
        "problem": "<image>" * len(images) + bare,
        "answer": str(raw["answer"]).strip(),
        "images": images,
    }


build = Recipe(
    about=ABOUT,
    question=("problem",),
    rows=rows,
    convert=convert,
).build
