"""Ada-GRPO: rare reasoning formats are worth more, less and less so over the run.

ARM, arXiv 2505.20258. A response's format is the marker that stands first in its text; without
one, the reward is 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.answer_kinds import kinds
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Stage, with_rewards
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "scales rewards up for rare answer formats"
PAPER = "arXiv 2505.20258"

MARKERS = {"direct": "<ANSWER>", "short": "<COT>", "code": "<CODE>", "long": "<LONG_COT>"}


class Params(Section):
    group_size: int = Field(8, gt=1)
    markers: Mapping[str, str] = Field(MARKERS, description="format -> the text that opens it")


@dataclass(frozen=True)
class RareFormats(Stage):
    """Multiply rewards by 1 + (G / F - 1) (1 + cos(pi t / T)) / 2, F responses of the format."""

    markers: Mapping[str, str]

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        progress = context.step / context.total_steps
        return [
            with_rewards(g, g.rewards * scales(kinds(g, self.markers), progress)) for g in groups
        ]


def scales(formats: Sequence[str | None], progress: float) -> Floats:
    """Factor of each response's reward [G]; 0 for a response of no known format."""
    counts = Counter(formats)
    decay = (1 + np.cos(np.pi * progress)) / 2
    rarity = [len(formats) / counts[f] - 1 for f in formats]
    return np.array(
        [0.0 if f is None else 1 + x * decay for f, x in zip(formats, rarity, strict=True)]
    )


def build(params: Params) -> Algorithm:
    """Fill shaping and KL; the rest is GRPO."""
    return Algorithm(
        name="ada_grpo",
        plan=FixedGroup(params.group_size),
        shape=(RareFormats(params.markers),),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(),
        kl=KL(0.001),
    )
