"""COCO-form instances files (COCO, LVIS) -> few-shot detection rows.

The same few pairs of picture and category are drawn each time: those with the smallest hash of
seed, category and picture. Two passes over the file, nothing of it is held but what is drawn.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmrl.recipes.medium import LeftOut
from mmrl.recipes.raw_folder import Source

Pair = tuple[int, int]
"""(category id, image id)."""


def few_shot(source: Source, path: Path, shots: int) -> Iterator[Mapping[str, Any]]:
    """Draw `shots` pictures a category; a row holds all boxes of that category in the picture.

    Rows come by category, then by picture: `id`, `file`, `width`, `height`, `categories` of one
    name, `annotations` in COCO's xywh pixels. A category with fewer pictures has fewer rows.
    """
    drawn = _draw(source, path, shots)
    boxes: dict[Pair, list[dict[str, Any]]] = {pair: [] for pair in drawn}
    for row in source.array(path, "annotations"):
        pair = (row["category_id"], row["image_id"])
        if pair in boxes:
            boxes[pair].append({"bbox": row["bbox"], "iscrowd": row.get("iscrowd", 0)})
    names = {row["id"]: _readable(row["name"]) for row in source.array(path, "categories")}
    wanted = {image for _, image in drawn}
    images = {row["id"]: row for row in source.array(path, "images") if row["id"] in wanted}
    for category, image in sorted(drawn):
        name, picture = names[category], images[image]
        yield {
            "id": f"{image}-{category}",
            "file": _file_of(picture),
            "width": picture["width"],
            "height": picture["height"],
            "categories": [name],
            "annotations": [{**box, "category": name} for box in boxes[category, image]],
        }


def convert(raw: Mapping[str, Any], source: Source) -> Mapping[str, Any]:
    """A row of `few_shot` with its picture at `file`; only crowds leave nothing to box: LeftOut."""
    if all(box["iscrowd"] for box in raw["annotations"]):
        raise LeftOut("all its objects are crowds")
    fields = {key: value for key, value in raw.items() if key != "file"}
    return {**fields, "image": source.medium(raw["file"])}


def _readable(name: str) -> str:
    """`alarm clock` of LVIS's `alarm_clock`."""
    return name.replace("_", " ")


def _file_of(picture: Mapping[str, Any]) -> str:
    """`train2017/0001.jpg` of LVIS's `coco_url`, else COCO's `file_name`."""
    if "file_name" in picture:
        return str(picture["file_name"])
    return "/".join(str(picture["coco_url"]).split("/")[-2:])


def _draw(source: Source, path: Path, shots: int) -> set[Pair]:
    """The pairs with the smallest hashes of each category."""
    nearest: dict[int, list[tuple[int, int]]] = {}
    for row in source.array(path, "annotations"):
        category, image = row["category_id"], row["image_id"]
        heap = nearest.setdefault(category, [])
        entry = (-_rank(source.seed, category, image), image)
        if entry in heap:
            continue
        if len(heap) < shots:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    return {(category, image) for category, heap in nearest.items() for _, image in heap}


def _rank(seed: int, category: int, image: int) -> int:
    digest = hashlib.sha256(f"{seed}:{category}:{image}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
