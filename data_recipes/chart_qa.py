"""ChartQA (Masry et al., ACL 2022): questions about charts, written by people or generated.

Two layouts: vis-nlp/ChartQA's `{train,val,test}/{SPLIT}_{human,augmented}.json` (`imgname`,
`query`, `label`) with `png/`, below `ChartQA Dataset/` or the folder itself; or the hub's parquet
files with `image`, `query`, `label`, `human_or_machine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source, embedded
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="chart_qa",
    summary="questions about bar, line and pie charts",
    task="chart_qa",
    license="GPL-3.0",
    hub="HuggingFaceM4/ChartQA",
    url="https://github.com/vis-nlp/ChartQA",
    layout="{train,val,test}/*_{human,augmented}.json with png/ beside them, or data/*.parquet",
)


def rows(source: Source) -> Rows:
    """The records of each split, people's first, else the parquet rows."""
    files = [
        file
        for kind in ("human", "augmented")
        for file in source.find(f"*/*_{kind}.json", f"*/*/*_{kind}.json")
    ]
    for file in sorted(files, key=lambda f: f.parent):
        split, _, kind = file.stem.rpartition("_")
        folder = file.parent.relative_to(source.root).as_posix()
        for number, row in enumerate(source.rows(file)):
            yield split, {**row, "id": f"{file.stem}-{number}", "folder": folder, "type": kind}
    if not files:
        for split, file in source.shards("data", "."):
            for number, row in enumerate(source.rows(file)):
                yield split, {"id": f"{file.stem}-{number}", **row}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`image`, `query`, `label`, `type`."""
    fields = dict(raw)
    if "imgname" in fields:
        fields["image"] = source.medium(fields.pop("folder"), "png", raw["imgname"])
        return fields
    kind = fields.get("human_or_machine")
    label = fields.get("type") or ("augmented" if kind else "human")
    return {**fields, "image": embedded(raw["image"]), "type": label}


build = Recipe(
    about=ABOUT,
    question=("query", "question"),
    rows=rows,
    convert=convert,
).build
