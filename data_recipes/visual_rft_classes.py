"""Visual-RFT's few-shot classification sets (Liu et al., 2025): flowers, pets, aircraft, cars.

Layout of the hub's laolao77/ViRFT_CLS_flower_4_shot, _fgvc_aircraft_4_shot, _car196_4shot,
_pets37_4shot: `data/train-*.parquet` with `image`, `problem`, `solution` (`<answer> pink primrose
</answer>`). Every class is in the training split, so its labels are the closed set that each
record gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source, embedded
from mmrl.recipes.recipe import About, Recipe, Rows
from mmrl.rewards.graded import tagged_solution
from mmrl.rewards.labels import label_key

ABOUT = About(
    name="visual_rft_classes",
    summary="species, breeds, aircraft or cars, four pictures a class",
    task="fine_grained",
    license="CC-BY-NC-4.0",
    hub="laolao77/ViRFT_CLS_flower_4_shot",
    url="https://github.com/Liuziyu77/Visual-RFT",
    layout="data/train-*.parquet",
)


def rows(source: Source) -> Rows:
    """The rows of the parquet files, each with all labels."""
    files = source.shards("data", ".")
    labels: dict[str, str] = {}
    for _, file in files:
        for solution in source.column(file, "solution"):
            label = tagged_solution(solution)
            labels.setdefault(label_key(label), label)
    for split, file in files:
        for number, row in enumerate(source.rows(file)):
            yield split, {**row, "id": f"{file.stem}-{number}", "labels": sorted(labels.values())}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The row with its picture."""
    return {**raw, "image": embedded(raw["image"])}


build = Recipe(
    about=ABOUT,
    question=("problem",),
    rows=rows,
    convert=convert,
).build
