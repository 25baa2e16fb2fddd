"""Geometry3K (Lu et al., Inter-GPS, ACL 2021): figures, questions, four choices.

Two layouts: that of lupantech/InterGPS (its README), `{train,val,test}/ID/` with `data.json` and
`img_diagram.png`, or the hub's parquet files of `images`, `problem`, `answer`
(hiyouga/geometry3k, as EasyR1 and verl's `examples/data_preprocess/geo3k.py` read them). Problem
folders without splits become the split `all`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrl.recipes.raw_folder import Source, embedded
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="geometry3k",
    summary="geometry problems with a figure",
    task="geometry3k",
    license="MIT",
    hub="hiyouga/geometry3k",
    url="https://github.com/lupantech/InterGPS",
    layout="{train,val,test}/ID/data.json with img_diagram.png beside it, or data/*.parquet",
)


def rows(source: Source) -> Rows:
    """Problem folders in the order of their numbers, else the rows of the parquet files."""
    folders = {
        split: source.find(*(f"{above}{split}/*/data.json" for above in ("", "*/", "*/*/")))
        for split in ("train", "val", "test")
    }
    if not any(folders.values()):
        folders = {"all": source.find("*/data.json")}
    for split, files in folders.items():
        for file in sorted(files, key=lambda f: (len(f.parent.name), f.parent.name)):
            yield split, file
    if not any(folders.values()):
        for split, file in source.shards("data", "."):
            for number, row in enumerate(source.rows(file)):
                yield split, {"id": f"{file.stem}-{number}", **row}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The columns of a problem folder or of a parquet row, with the pictures."""
    if isinstance(raw, Path):
        figure = source.at(raw.with_name("img_diagram.png"))
        return {**json.loads(source.text(raw)), "id": raw.parent.name, "image": figure}
    return {**raw, "images": [embedded(image) for image in raw["images"]]}


build = Recipe(
    about=ABOUT,
    question=("problem_text", "problem"),
    rows=rows,
    convert=convert,
).build
