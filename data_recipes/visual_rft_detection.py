"""Visual-RFT's own detection sets (Liu et al., 2025) out of COCO and LVIS.

Layout of the hub's laolao77/ViRFT_COCO_base65, ViRFT_COCO_8_cate_4_shot, ViRFT_LVIS_few_shot ...:
`data/train-*.parquet` with `image`, `problem` (one category in quotes) and `solution` (positions
in 0-1000, or `No Objects`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source, embedded
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="visual_rft_detection",
    summary="all objects of one category, as Visual-RFT trains it",
    task="detection",
    license="CC-BY-NC-4.0",
    hub="laolao77/ViRFT_COCO_base65",
    url="https://github.com/Liuziyu77/Visual-RFT",
    layout="data/train-*.parquet",
)


def rows(source: Source) -> Rows:
    """The rows of the parquet files."""
    for split, file in source.shards("data", "."):
        for number, row in enumerate(source.rows(file)):
            yield split, {**row, "id": f"{file.stem}-{number}"}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The row with its picture."""
    return {**raw, "image": embedded(raw["image"])}


build = Recipe(
    about=ABOUT,
    question=("problem",),
    rows=rows,
    convert=convert,
).build
