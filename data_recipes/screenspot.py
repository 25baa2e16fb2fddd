"""ScreenSpot (Cheng et al., SeeClick, ACL 2024): point at an element of a screen.

Two layouts: SeeClick's `screenspot_{desktop,mobile,web}.json` (`img_filename`, `bbox` xywh in
pixels, `instruction`, `data_type`, `data_source`) with `screenspot_imgs/`; or the hub's
`data/test-*.parquet` (`file_name`, `image`, `bbox` xyxy in 0-1). The columns tell the task which
of the two it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source, embedded
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="screenspot",
    summary="point at the element of a screen that an instruction names",
    task="gui_grounding",
    license="Apache-2.0",
    hub="rootsautomation/ScreenSpot",
    url="https://github.com/njucckevin/SeeClick",
    layout="screenspot_{desktop,mobile,web}.json with screenspot_imgs/, or data/test-*.parquet",
)


def rows(source: Source) -> Rows:
    """The records of the three json files, else the parquet rows."""
    files = source.find("screenspot_*.json")
    for file in files or source.need("data/*.parquet", "*.parquet"):
        for number, row in enumerate(source.rows(file)):
            yield "test", {**row, "id": f"{file.stem}-{number}"}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The record with its screen."""
    if "img_filename" in raw:
        return {
            **raw,
            "img_filename": source.locate(raw["img_filename"], "screenspot_imgs", "images"),
        }
    return {**raw, "image": embedded(raw["image"])}


build = Recipe(
    about=ABOUT,
    question=("instruction", "bbox"),
    rows=rows,
    convert=convert,
    training=(),
).build
