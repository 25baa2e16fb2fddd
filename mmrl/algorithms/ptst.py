"""PTST: longer responses in smaller groups, stage by stage, with a hard result reward.

Progressive thinking suppression training of Vision-R1, arXiv 2503.06749. Stages share the run
evenly and the tokens of a prompt stay the same. As `phases` of a config, each stage can reset the
optimiser and the reference; which of them it resets is not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field, model_validator

from mmrl.algorithm import Algorithm, Context, Stage
from mmrl.algorithms.credit import GroupCredit, GroupRelative
from mmrl.algorithms.objectives import Clipped
from mmrl.algorithms.shapers import RightAndWellFormed
from mmrl.config import Section
from mmrl.types import Prompt

SUMMARY = "response length grows and groups shrink by stages"
PAPER = "arXiv 2503.06749"


class Params(Section):
    lengths: tuple[int, ...] = Field((4096, 8192, 16384), min_length=1)
    group_sizes: tuple[int, ...] = Field((16, 8, 4), min_length=1)
    format_part: str = "format"
    answer_part: str = "accuracy"

    @model_validator(mode="after")
    def _same_stages(self) -> Params:
        if len(self.lengths) != len(self.group_sizes):
            raise ValueError("lengths and group_sizes must have one value for each stage")
        return self


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
        plan=StagedGroups(Staged(params.group_sizes)),
        length=Staged(params.lengths),
        shape=(RightAndWellFormed(params.answer_part, params.format_part),),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(),
    )
