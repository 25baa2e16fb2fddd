"""ReasonSeg (Lai et al., LISA, CVPR 2024): questions that imply an object, with its polygons.

Layout of dvlab-research/LISA: `{train,val,test}/NAME.json` (`shapes` labelled target, ignore or
flag, `text`, `is_sentence`) with `NAME.jpg` beside it; some files are in Windows' encoding, as
LISA's `get_mask_from_json` knows. Every text is a record. Files with PixelThink's
`difficulty_score` and `uncertainty_score`, one number or one a text, give them to their records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="reasonseg",
    summary="find what a question implies, with masks",
    task="reasoning_segmentation",
    license="Apache-2.0 (annotations); pictures have their owners' licences",
    url="https://github.com/dvlab-research/LISA",
    layout="{train,val,test}/NAME.json with NAME.jpg beside each",
)


JUDGED = ("difficulty_score", "uncertainty_score")


def rows(source: Source) -> Rows:
    """One row a text."""
    for file in source.need("*/*.json", "*/*/*.json"):
        if file.parent.name not in ("train", "val", "test"):
            source.skipped["json files outside train, val and test"] += 1
            continue
        fields = json.loads(_decoded(source, file))
        for number, text in enumerate(fields["text"]):
            judged = {key: _of_text(fields[key], number) for key in JUDGED if key in fields}
            yield (
                file.parent.name,
                (f"{file.stem}-{number}", text, fields, judged, file.with_suffix(".jpg")),
            )


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The question with its picture and shapes."""
    id, text, fields, judged, picture = raw
    return {
        "id": id,
        "image": source.at(picture),
        "text": text,
        "is_sentence": fields.get("is_sentence"),
        "shapes": [{"label": s["label"], "points": s["points"]} for s in fields["shapes"]],
        **judged,
    }


def _of_text(value: Any, number: int) -> float:
    return float(value[number] if isinstance(value, list) else value)


def _decoded(source: Source, file: Path) -> str:
    try:
        return source.text(file)
    except UnicodeDecodeError:
        return file.read_bytes().decode("cp1252")


build = Recipe(
    about=ABOUT,
    question=("text",),
    rows=rows,
    convert=convert,
).build
