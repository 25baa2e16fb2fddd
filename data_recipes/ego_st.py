"""Ego-ST (Wu et al., 2025): routes in egocentric video, forwards and in reverse.

Layout of WPR001/Ego-ST: `ST-R1/r1_data/*.jsonl` with `problem`, `solution` (thought and letter in
tags) and `video`, a path on the authors' machine. The video is looked for at that path below the
folder, then by its name in `videos/` and in the folder itself. The rows have no id: the file's
name and the line make one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="ego_st",
    summary="multiple choice about routes in egocentric video",
    task="ego_st",
    license="MIT",
    url="https://github.com/WPR001/Ego-ST",
    layout="ST-R1/r1_data/*.jsonl (or *.jsonl) and videos/",
)


def rows(source: Source) -> Rows:
    """The rows of every json lines file; names with `test` or `train` in them give the split."""
    for file in source.need("ST-R1/r1_data/*.jsonl", "*.jsonl"):
        split = "test" if "test" in file.stem else "train"
        for number, row in enumerate(source.rows(file), 1):
            yield split, {"id": f"{file.stem}-{number}", **row}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The row with its video."""
    path = PurePosixPath(raw["video"].lstrip("/"))
    return {**raw, "video": source.locate(path.name, "videos", str(path.parent), "")}


build = Recipe(
    about=ABOUT,
    question=("problem",),
    rows=rows,
    convert=convert,
).build
