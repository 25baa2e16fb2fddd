"""ScreenSpot-Pro (Li et al., 2025): small targets on large screens of professional software.

Layout of the hub: `annotations/APPLICATION.json` (`id`, `img_filename`, `bbox` xyxy in pixels,
`img_size`, `instruction`, `instruction_cn`, `ui_type`, `group`, `application`, `platform`) with
`images/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="screenspot_pro",
    summary="small targets on screens of professional software",
    task="gui_grounding",
    license="MIT",
    hub="likaixin/ScreenSpot-Pro",
    url="https://github.com/likaixin2000/ScreenSpot-Pro-GUI-Grounding",
    layout="annotations/*.json and images/",
)


def rows(source: Source) -> Rows:
    """The records of every application."""
    for file in source.need("annotations/*.json"):
        for number, row in enumerate(source.rows(file)):
            yield "test", {"id": f"{file.stem}-{number}", **row}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The record with its screen."""
    return {**raw, "img_filename": source.medium("images", raw["img_filename"])}


build = Recipe(
    about=ABOUT,
    question=("instruction", "bbox"),
    rows=rows,
    convert=convert,
    training=(),
).build
