"""ScreenSpot-v2 (Wu et al., OS-Atlas, 2024): ScreenSpot with its faulty labels mended.

Layout of the hub: `screenspot_{desktop,mobile,web}_v2.json` (`img_filename`, `bbox` xywh in
pixels, `instruction`, `data_type`, `data_source`) with `screenspotv2_image/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="screenspot_v2",
    summary="ScreenSpot with mended labels",
    task="gui_grounding",
    license="Apache-2.0",
    hub="OS-Copilot/ScreenSpot-v2",
    url="https://github.com/OS-Copilot/OS-Atlas",
    layout="screenspot_{desktop,mobile,web}_v2.json with screenspotv2_image/",
)


def rows(source: Source) -> Rows:
    """The records of the three files."""
    for file in source.need("screenspot_*_v2.json"):
        for number, row in enumerate(source.rows(file)):
            yield "test", {**row, "id": f"{file.stem}-{number}"}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The record with its screen."""
    return {**raw, "img_filename": source.locate(raw["img_filename"], "screenspotv2_image")}


build = Recipe(
    about=ABOUT,
    question=("instruction", "bbox"),
    rows=rows,
    convert=convert,
    training=(),
).build
