"""MATH-Vision (Wang et al., 2024): competition problems with a figure, solutions for some.

Layout of mathllm/MATH-V: `data/{testmini,test}.jsonl` (`id`, `question`, `options`, `answer`,
`solution`, `level`, `subject`, `image` relative to the folder) and `images/`; on the hub also
`data/*.parquet` with the picture as `decoded_image`. Key steps come from `solution`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes import solution_steps
from mmrl.recipes.raw_folder import Source, embedded, split_of
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="math_vision",
    summary="competition mathematics with figures",
    task="math_vision",
    license="MIT",
    hub="MathLLMs/MathVision",
    url="https://github.com/mathllm/MATH-V",
    layout="data/{testmini,test}.jsonl with images/, or data/*.parquet",
)


def rows(source: Source) -> Rows:
    """The json lines of both splits, else the parquet files."""
    for file in source.need("data/*.jsonl", "*.jsonl", "data/*.parquet"):
        for row in source.rows(file):
            yield split_of(file), row


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The row with its picture, and key steps where it has a solution."""
    picture = raw.pop("decoded_image", None)
    image = embedded(picture) if picture else source.medium(raw["image"])
    steps = solution_steps.of_solution(raw.get("solution"))
    return {**raw, "image": image, **({"key_steps": steps} if steps else {})}


build = Recipe(
    about=ABOUT,
    question=("question", "options"),
    rows=rows,
    convert=convert,
    training=(),
).build
