"""MathVista (Lu et al., ICLR 2024): mathematics in pictures from 31 data sets.

Two layouts: `testmini.json` (problem id -> record, as in lupantech/MathVista `data/`, on the hub
`annot_testmini.json`) with `images/` beside it, or the hub's `data/{testmini,test}-*.parquet`
with the picture as `decoded_image`. The test split has no answers: its rows are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.medium import LeftOut
from mmrl.recipes.raw_folder import Source, embedded
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="mathvista",
    summary="mathematics in figures, charts, tables and scenes",
    task="mathvista",
    license="CC-BY-SA-4.0",
    hub="AI4Math/MathVista",
    url="https://github.com/lupantech/MathVista",
    layout="testmini.json (or annot_testmini.json, data/testmini.json) with images/ beside it, "
    "or data/*.parquet",
)


def rows(source: Source) -> Rows:
    """The problems of the json file with the picture's folder, else the parquet rows."""
    files = source.find("testmini.json", "annot_testmini.json", "data/testmini.json")
    for file in files:
        folder = file.parent.relative_to(source.root).as_posix()
        for pid, row in source.members(file):
            yield "testmini", {**row, "id": pid, "folder": folder}
    if not files:
        for split, file in source.shards("data", "."):
            for row in source.rows(file):
                yield split, {**row, "id": row["pid"]}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The problem with its picture."""
    if not raw.get("answer"):
        raise LeftOut("the answer is not public")
    fields = dict(raw)
    folder, picture = fields.pop("folder", "."), fields.pop("decoded_image", None)
    fields["image"] = embedded(picture) if picture else source.medium(folder, raw["image"])
    return fields


build = Recipe(
    about=ABOUT,
    question=("question", "choices"),
    rows=rows,
    convert=convert,
    training=(),
).build
