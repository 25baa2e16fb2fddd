"""AVQA-R1-6K (EchoInk-R1, 2025): a picture and a sound of one video, multiple choice.

Layout of the hub, unpacked: `AVQA_R1/{train,valid}/omni_rl_format_{train,valid}.json`, a list of
`problem_id`, `problem`, `data_type` image_audio, `problem_type`, `options`, `solution` in tags,
`path` with `image` and `audio` relative to the file (HarryHsing/EchoInk, README).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="avqa_r1",
    summary="multiple choice about a picture and a sound",
    task="audio_visual_qa",
    license="Apache-2.0 (questions); media have their owners' licences",
    hub="harryhsing/AVQA-R1-6K",
    url="https://github.com/HarryHsing/EchoInk",
    layout="{train,valid}/omni_rl_format_*.json with images/ and audios/ (or AVQA_R1/ with them)",
)


def rows(source: Source) -> Rows:
    """The records of each split, named by its folder."""
    for file in source.need("*/omni_rl_format_*.json", "AVQA_R1/*/omni_rl_format_*.json"):
        folder = file.parent.relative_to(source.root).as_posix()
        for row in source.rows(file):
            yield file.parent.name, {**row, "folder": folder}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The record with its picture and sound."""
    fields = {key: value for key, value in raw.items() if key != "folder"}
    path = {kind: source.medium(raw["folder"], raw["path"][kind]) for kind in ("image", "audio")}
    return {**fields, "id": str(raw["problem_id"]), "path": path}


build = Recipe(
    about=ABOUT,
    question=("problem", "options"),
    rows=rows,
    convert=convert,
).build
