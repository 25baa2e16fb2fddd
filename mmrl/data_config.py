"""Where a run's records are, and how they are read: the section `data` of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from mmrl.validation import Section

OWN_PHASE = "phase:"
"""In front of a phase's name: what that phase has left in the run's folder."""
Band = tuple[float, float]
"""The least and the largest number that is taken."""


class RecipeConfig(Section):
    name: str = Field(description="see `mmrl data`")
    source: Path | None = Field(None, description="folder of the raw data, where it reads any")
    out: Path = Field(description="folder the recipe writes into")


class DataConfig(Section):
    task: str = Field(description="see `mmrl tasks`")
    path: Path = Field(
        description="records to train on: a file, a folder or glob of shards, a folder that "
        "`datasets` saved, or hf:owner/name[:config]@split; see docs/data.md"
    )
    eval_path: Path | None = Field(None, description="held-out records; default: none")
    stored: Path | None = Field(
        None,
        description="completions of these records: a run's folder or rollouts.jsonl, an "
        "evaluation's answers.jsonl, or lines {id, answer, reward}; phase:NAME are those of an "
        "earlier phase of the run itself; see docs/preferences.md",
    )
    params: Mapping[str, Any] = Field(default_factory=dict, description="the task's parameters")
    weights: Mapping[str, float] = Field(
        default_factory=dict, description="weight of each reward part; default: the task's own"
    )
    columns: Mapping[str, str | None] = Field(
        default_factory=dict,
        description="in which column (or path, such as reward_model.ground_truth) an asked name "
        "is: {question: q, image: img, answer: a}; null leaves a column out",
    )
    media_roots: tuple[Path, ...] = Field(
        (), description="folders besides the data's own in which media may be"
    )
    max_unusable_share: float = Field(
        0.2, ge=0, le=1, description="of records that cannot be asked; stop the run above it"
    )
    keep: Mapping[str, Band] = Field(
        default_factory=dict,
        description="draw only records whose number in a column is within a band, ends included: "
        "{pass_rate: [0.1, 0.9]}; `mmrl rate` adds pass rates",
    )
    mix: float = Field(1.0, gt=0, description="share of this source among several")
    limit: int | None = Field(None, gt=0, description="read only so many records")
    shuffle: bool = Field(True, description="draw in a seeded order, anew in every epoch")
    recipe: RecipeConfig | None = Field(
        None, description="data recipe that runs if `path` is missing"
    )
