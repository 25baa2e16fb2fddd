"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that each describe one object of a COCO picture.

Layout of lichengunc/refer: `refcoco/refs(unc).p`, `refcoco+/refs(unc).p`, `refcocog/refs(umd).p`
(a list of `ref_id`, `ann_id`, `image_id`, `split`, `sentences`), `instances.json` in COCO's form
beside each, and COCO's train2014 pictures. The pickles are read without running anything they
name. A split is called `DATASET_SPLIT`; the Google split of RefCOCOg shares pictures between
train and val, so its refs are only read where the UMD ones are missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrl.recipes.pickles import load_plain
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="refcoco",
    summary="the box of the object that an expression describes",
    task="referring_box",
    license="Apache-2.0 (annotations); COCO's pictures have their owners' licences",
    url="https://github.com/lichengunc/refer",
    layout="{refcoco,refcoco+,refcocog}/refs(*).p with instances.json, and train2014/ "
    "(or images/mscoco/images/train2014/)",
)
DATASETS = ("refcoco", "refcoco+", "refcocog")
_PICTURES = ("train2014", "images/mscoco/images/train2014", "images/train2014")


def rows(source: Source) -> Rows:
    """One row an expression, in the order of the pickle."""
    folders = [file.parent for file in source.find("*/instances.json")]
    folders = [f for f in folders if f.name in DATASETS]
    if not folders:
        raise source.missing("refcoco/instances.json")
    for folder in folders:
        refs = load_plain(_refs(source, folder))
        boxes, names = _instances(source, folder / "instances.json", refs)
        for ref in refs:
            for sentence in ref["sentences"]:
                row = {
                    "id": f"{ref['ref_id']}-{sentence['sent_id']}",
                    "image": names[ref["image_id"]],
                    "sentence": sentence["sent"],
                    "bbox": boxes[ref["ann_id"]],
                    "split": f"{folder.name}_{ref['split']}",
                }
                yield row["split"], row


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The expression with its picture; the box is COCO's xywh in pixels."""
    return {**raw, "image": source.locate(raw["image"], *_PICTURES)}


def _refs(source: Source, folder: Path) -> Path:
    for name in ("refs(unc).p", "refs(umd).p", "refs(google).p"):
        if (folder / name).is_file():
            source.used[folder / name] = None
            return folder / name
    raise source.missing(f"{folder.name}/refs(*).p")


def _instances(source: Source, path: Path, refs: Any) -> tuple[dict[int, Any], dict[int, str]]:
    """Boxes by annotation and file names by picture, of those that are referred to only."""
    wanted = {ref["ann_id"] for ref in refs}
    pictures = {ref["image_id"] for ref in refs}
    names = {
        row["id"]: row["file_name"] for row in source.array(path, "images") if row["id"] in pictures
    }
    boxes = {
        row["id"]: row["bbox"] for row in source.array(path, "annotations") if row["id"] in wanted
    }
    for missing in (wanted - boxes.keys(), pictures - names.keys()):
        if missing:
            raise source.missing(f"entry {min(missing)} in {path.name}, which the refs name")
    return boxes, names


build = Recipe(
    about=ABOUT,
    question=("sentence",),
    rows=rows,
    convert=convert,
    training=tuple(f"{name}_train" for name in DATASETS),
).build
