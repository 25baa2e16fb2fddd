"""GUI-R1-3K (Luo et al., 2025): single steps on five platforms, and the parquets of its evaluation.

Layout of the hub: `train.parquet`, `test.parquet`, `androidcontrol_high_test.parquet` ... with
`image`, `instruction`, `history`, `task_type`, `gt_bbox` (2 or 4 numbers), `gt_action`,
`gt_input_text`, `group`, `ui_type`. Boxes are in 0-1 in training and in pixels in some test
files: a file with any number above 1 is in pixels as a whole, and its records say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source, embedded, split_of
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="gui_r1",
    summary="the next action on phone, desktop and web screens",
    task="gui_action",
    license="Apache-2.0",
    hub="ritzz/GUI-R1",
    url="https://github.com/ritzz-ai/GUI-R1",
    layout="*.parquet (train.parquet, test.parquet ...)",
)


def rows(source: Source) -> Rows:
    """The steps of each file; its name is the split."""
    for file in source.need("*.parquet", "data/*.parquet"):
        boxes = source.column(file, "gt_bbox")
        unit = all(number <= 1 for box in boxes for number in box or ())
        for number, row in enumerate(source.rows(file)):
            space = "unit" if unit else "source_pixels"
            yield split_of(file), {"id": f"{file.stem}-{number}", **row, "bbox_space": space}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The step with its screenshot."""
    return {**raw, "id": str(raw["id"]), "image": embedded(raw["image"])}


build = Recipe(
    about=ABOUT,
    question=("instruction", "history"),
    rows=rows,
    convert=convert,
).build
