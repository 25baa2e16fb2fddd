"""ToolRL (Qian et al., 2025): 4,000 tool-use dialogues from ToolACE, Hammer and xLAM.

Layout of qiancheng0/ToolRL: `dataset/rlla_4k/{train,test}.parquet` with `prompt` messages,
`reward_model.ground_truth` (tagged text) and `extra_info` (verl's columns).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="toolrl",
    summary="tool calls in a dialogue",
    task="tool_calls",
    license="Apache-2.0",
    url="https://github.com/qiancheng0/ToolRL",
    layout="dataset/rlla_4k/{train,test}.parquet (or *.parquet)",
)


def rows(source: Source) -> Rows:
    """The rows of both splits."""
    for split, file in source.shards("dataset/rlla_4k", "data", "."):
        for number, row in enumerate(source.rows(file)):
            yield split, {**row, "id": f"{split}-{number}"}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The row as it is."""
    return raw  # type: ignore[no-any-return]


build = Recipe(
    about=ABOUT,
    question=("prompt",),
    rows=rows,
    convert=convert,
).build
