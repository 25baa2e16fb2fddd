"""VSI-Bench (Yang et al., 2024): spatial questions about videos of rooms.

Layout of the hub: `test.jsonl` or `test*.parquet` (`id`, `dataset`, `scene_name`,
`question_type`, `question`, `options`, `ground_truth`) and
`{arkitscenes,scannet,scannetpp}/SCENE.mp4` from the zips.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source, split_of
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="vsi_bench",
    summary="counts, distances, sizes, routes in videos of rooms",
    task="vsi_bench",
    license="Apache-2.0; ScanNet, ScanNet++ and ARKitScenes have licences of their own",
    hub="nyu-visionx/VSI-Bench",
    url="https://github.com/vision-x-nyu/thinking-in-space",
    layout="test.jsonl (or test*.parquet) and {arkitscenes,scannet,scannetpp}/*.mp4",
)


def rows(source: Source) -> Rows:
    """The questions in the file's order; a debiased or pruned file is a split of its own."""
    for file in source.need("test*.jsonl", "test*.parquet"):
        for number, row in enumerate(source.rows(file)):
            yield split_of(file), {"id": number, **row}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The question with its video."""
    video = source.medium(raw["dataset"], f"{raw['scene_name']}.mp4")
    return {**raw, "id": str(raw["id"]), "video": video}


build = Recipe(
    about=ABOUT,
    question=("question", "options"),
    rows=rows,
    convert=convert,
    training=(),
).build
