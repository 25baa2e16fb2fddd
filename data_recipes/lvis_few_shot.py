"""LVIS v1 (Gupta et al., 2019), few-shot detection over 1,203 categories on COCO's pictures.

Layout: `lvis_v1_{train,val}.json` (COCO's form with `coco_url` in place of `file_name`,
lvisdataset.org) with `train2017/` and `val2017/`; validation pictures may lie in either. 4
pictures a category for training, 1 for `val`, drawn by `--seed`.
"""

from __future__ import annotations

from mmrl.recipes import coco
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="lvis_few_shot",
    summary="all objects of one rare or common category, four pictures a category",
    task="detection",
    license="CC-BY-4.0 (annotations); pictures have their owners' licences",
    url="https://www.lvisdataset.org/dataset",
    layout="lvis_v1_{train,val}.json (or annotations/lvis_v1_*.json) with train2017/ and val2017/",
)
SHOTS = {"train": 4, "val": 1}


def rows(source: Source) -> Rows:
    """Drawn rows of each file."""
    for file in source.need("lvis_v1_*.json", "annotations/lvis_v1_*.json"):
        split = file.stem.removeprefix("lvis_v1_")
        for row in coco.few_shot(source, file, SHOTS[split]):
            yield split, row


build = Recipe(
    about=ABOUT,
    question=("categories",),
    rows=rows,
    convert=coco.convert,
).build
