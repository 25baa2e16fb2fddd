"""MathVerse (Zhang et al., ECCV 2024): each problem in six versions, from text to picture.

Layout of the hub: `testmini.json` and `testmini_text_only.json` with `images/` (from images.zip),
or the parquet files of the same names with the picture in `image`. Text Only records name none.
All versions of a problem stay in one split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source, embedded
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="mathverse",
    summary="geometry and functions, content moved from text to picture",
    task="mathverse",
    license="MIT",
    hub="AI4Math/MathVerse",
    url="https://github.com/ZrrSkywalker/MathVerse",
    layout="testmini.json, testmini_text_only.json and images/, or testmini*.parquet",
)


def rows(source: Source) -> Rows:
    """The records of each file; its name gives the split."""
    for file in source.need("testmini*.json", "testmini*.parquet"):
        for row in source.rows(file):
            yield file.stem, row


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The record with its picture, if it has one."""
    image = raw.get("image") or None
    if isinstance(image, str):
        image = source.locate(image, "images", "")
    elif image is not None:
        image = embedded(image)
    return {**raw, "id": str(raw["sample_index"]), "image": image}


build = Recipe(
    about=ABOUT,
    question=("question", "problem_version"),
    rows=rows,
    convert=convert,
    training=(),
).build
