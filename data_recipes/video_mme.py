"""Video-MME (Fu et al., 2024): multiple choice about short, medium and long videos.

Layout of the hub: `videomme/test-*.parquet` (`video_id`, `duration`, `domain`, `sub_category`,
`videoID`, `task_type`, `question_id`, `question`, `options`, `answer`) and `data/VIDEOID.mp4`
from the chunked zips; some videos have other endings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="video_mme",
    summary="multiple choice about videos of eleven seconds to an hour",
    task="video_choice",
    license="research use only",
    hub="lmms-lab/Video-MME",
    url="https://github.com/MME-Benchmarks/Video-MME",
    layout="videomme/test-*.parquet and data/*.mp4",
)
_ENDINGS = (".mp4", ".MP4", ".mkv", ".webm")


def rows(source: Source) -> Rows:
    """The questions in the file's order."""
    for split, file in source.shards("videomme", "."):
        for row in source.rows(file):
            yield split, row


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The question with its video."""
    found = [source.locate(f"{raw['videoID']}{ending}", "data", "videos") for ending in _ENDINGS]
    video = next((m for m in found if source.has(m)), found[0])
    return {**raw, "id": raw["question_id"], "video": video}


build = Recipe(
    about=ABOUT,
    question=("question", "options"),
    rows=rows,
    convert=convert,
    training=(),
).build
