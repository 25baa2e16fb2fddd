"""AVQA (Yang et al., 2022) as audio questions, in the form that R1-AQA trains on.

Layout of the hub's Joysw909/AVQA: `train_r1aqa_line.json` (json lines: `id`, `video_name`,
`question_text`, `multi_choice`, `answer` an index from 0, `question_relation`, `question_type`,
`audio_path` such as `./Joysw909/AVQA/VGG10000/NAME.wav`) with the `VGG*/` folders. Clips that
YouTube no longer has are missing there: their rows are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="avqa",
    summary="multiple choice about the sound of a video",
    task="audio_qa",
    license="research use; sounds have their owners' licences",
    hub="Joysw909/AVQA",
    url="https://mn.cs.tsinghua.edu.cn/avqa/",
    layout="*_r1aqa_line.json and VGG*/*.wav",
)
_PREFIX = "./Joysw909/AVQA/"


def rows(source: Source) -> Rows:
    """The lines of each file; its name gives the split."""
    for file in source.need("*_r1aqa_line.json", "*_r1aqa_line.jsonl"):
        source.used[file] = None
        with file.open(encoding="utf-8") as lines:
            for line in filter(str.strip, lines):
                yield file.stem.partition("_")[0], json.loads(line)


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The row with its sound."""
    path = str(raw["audio_path"]).removeprefix(_PREFIX)
    return {**raw, "id": str(raw["id"]), "audio_path": source.medium(path)}


build = Recipe(
    about=ABOUT,
    question=("question_text", "multi_choice"),
    rows=rows,
    convert=convert,
).build
