"""PTST: longer responses in smaller groups, stage by stage, with a hard result reward.

Progressive thinking suppression training of Vision-R1, arXiv 2503.06749. Stages share the run
evenly and the tokens of a prompt stay the same. As `phases` of a config, each stage can reset the
optimiser and the reference; which of them it resets is not published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import GroupCredit, GroupRelative
from mmrl.algorithms.stages.lengths import OfLongest
from mmrl.algorithms.stages.shapers import RightAndWellFormed
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Stage
from mmrl.types import Prompt
from mmrl.validation import Section

SUMMARY = "response length grows and groups shrink by stages"
PAPER = "arXiv 2503.06749"


SIZES = (2.0, 1.0, 0.5)
"""Responses in each stage, for one in the middle of them."""


class Params(Section):
    lengths: Annotated[tuple[int, ...], OfLongest(16_384)] = Field(
        (4096, 8192, 16384), min_length=1
    )
    group_size: int = Field(8, gt=1, description="twice as many in the first stage, half at last")
    group_sizes: tuple[int, ...] | None = Field(
        None, min_length=1, description="one for each stage, in place of group_size"
    )
    format_part: str | None = Field(
        None, description="default: `format` where the task has it, else an answer that is read"
    )
    answer_part: str = "accuracy"

    @model_validator(mode="after")
    def _same_stages(self) -> Params:
        if len(self.lengths) != len(self.sizes):
            raise ValueError("lengths and group_sizes must have one value for each stage")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.group_sizes or tuple(max(2, round(self.group_size * s)) for s in SIZES)


def unused(params: Params) -> Mapping[str, str]:
    """Name the common options without use."""
    return {} if params.group_sizes is None else {"group_size": "group_sizes says it by stage"}


@dataclass(frozen=True)
class Staged:
    """One of `values` for each of equal parts of the run."""

    values: tuple[int, ...]

    def __call__(self, context: Context) -> int:
        stage = (context.step - 1) * len(self.values) // max(context.total_steps, 1)
        return self.values[min(stage, len(self.values) - 1)]


@dataclass(frozen=True)
class StagedGroups(Stage):
    """Plan the group size of the current stage for every prompt."""

    sizes: Staged

    def __call__(self, prompts: Sequence[Prompt], context: Context) -> Sequence[int]:
        return [self.sizes(context)] * len(prompts)


def build(params: Params) -> Algorithm:
    """Fill plan, length and shaping; the rest is GRPO."""
    return Algorithm(
        name="ptst",
        plan=StagedGroups(Staged(params.sizes)),
        length=Staged(params.lengths),
        shape=(RightAndWellFormed(params.answer_part, params.format_part),),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(),
    )
