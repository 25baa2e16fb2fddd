"""GRPO with the group's median as baseline: one lucky answer does not make all others bad."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, scorable
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Stage
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "rewards minus the group's median, with a clipped ratio"
PAPER = "none: an example of a plug-in"


class Params(Section):
    group_size: int = Field(8, gt=0)
    limit: float = Field(2.0, gt=0, description="advantages are cut to this size")


@dataclass(frozen=True)
class MedianRelative(Stage):
    """Advantages [G]: rewards minus the median of the scorable ones, cut to `limit`.

    Unscorable answers (NaN) are in no median and get advantage 0.
    """

    limit: float = 2.0

    def __call__(self, group: Group, context: Context) -> Floats:
        rewards = group.rewards
        known = scorable(rewards)
        if not known.any():
            return np.zeros_like(rewards)
        centred = np.where(known, rewards - np.median(rewards[known]), 0.0)
        return np.clip(centred, -self.limit, self.limit)


def build(params: Params) -> Algorithm:
    """Fill the plan, the credit and the objective; the KL is 0 until it is asked for."""
    return Algorithm(
        name="median_grpo",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(MedianRelative(params.limit)),
        objective=Clipped(),
        kl=KL(),
    )
