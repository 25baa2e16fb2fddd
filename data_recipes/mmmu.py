"""MMMU (Yue et al., CVPR 2024): college questions over thirty subjects.

Layout of the hub: a folder a subject, `SUBJECT/{dev,validation,test}-00000-of-00001.parquet`,
with `id`, `question`, `options` (the text of a list), `explanation`, `image_1` to `image_7`,
`answer`, `question_type`, `subfield`, `topic_difficulty` (dataset card). The test split has no
answers: its rows are left out. Key steps come from `explanation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes import solution_steps
from mmrl.recipes.medium import LeftOut
from mmrl.recipes.raw_folder import Source, embedded
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="mmmu",
    summary="college questions with images over thirty subjects",
    task="mmmu",
    license="Apache-2.0",
    hub="MMMU/MMMU",
    url="https://github.com/MMMU-Benchmark/MMMU",
    layout="SUBJECT/{dev,validation,test}-*.parquet",
)
_IMAGES = tuple(f"image_{n}" for n in range(1, 8))


def rows(source: Source) -> Rows:
    """All subjects in order of their names."""
    for split, file in source.shards("*", "."):
        for row in source.rows(file):
            yield split, row


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The row with the pictures it has."""
    if str(raw["answer"]).strip() in ("", "?"):
        raise LeftOut("the answer is not public")
    images = {name: embedded(raw[name]) for name in _IMAGES if raw.get(name)}
    steps = solution_steps.of_solution(raw.get("explanation"))
    others = {key: value for key, value in raw.items() if key not in _IMAGES}
    return {**others, **images, **({"key_steps": steps} if steps else {})}


build = Recipe(
    about=ABOUT,
    question=("question", "options"),
    rows=rows,
    convert=convert,
    training=("dev",),
).build
