"""COCO (Lin et al., 2014), few-shot detection: some pictures a category, one category a prompt.

Layout: `annotations/instances_{train,val}2017.json` (COCO's form, cocodataset.org/#format-data)
with `train2017/` and `val2017/`. 4 pictures a category for training, as in Visual-RFT, 10 for
`val`, drawn by `--seed`.
"""

from __future__ import annotations

from mmrl.recipes import coco
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="coco_few_shot",
    summary="all objects of one category, four pictures a category",
    task="detection",
    license="CC-BY-4.0 (annotations); pictures have their owners' licences",
    url="https://cocodataset.org/#download",
    layout="annotations/instances_{train,val}2017.json with train2017/ and val2017/",
)
SHOTS = {"train": 4, "val": 10}


def rows(source: Source) -> Rows:
    """Drawn rows of each file."""
    for file in source.need("annotations/instances_*2017.json"):
        split = file.stem.removeprefix("instances_").removesuffix("2017")
        for row in coco.few_shot(source, file, SHOTS[split]):
            yield split, {**row, "file": f"{split}2017/{row['file']}"}


build = Recipe(
    about=ABOUT,
    question=("categories",),
    rows=rows,
    convert=coco.convert,
).build
