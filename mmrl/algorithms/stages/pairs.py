"""Pairs of a better and a worse response, for preference losses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmrl.algorithms.stages.credit import is_uniform, scorable
from mmrl.stage import Context, Stage
from mmrl.types import Floats, Group


@dataclass(frozen=True)
class BestAgainstWorst(Stage):
    """+1 for the best and -1 for the worst response [G], 0 for the others, or without contrast.

    The first of equals is taken.
    """

    def __call__(self, group: Group, context: Context) -> Floats:
        rewards = group.rewards
        labels = np.zeros(len(rewards))
        if not is_uniform(rewards):
            known = scorable(rewards)
            labels[int(np.argmax(np.where(known, rewards, -np.inf)))] = 1.0
            labels[int(np.argmin(np.where(known, rewards, np.inf)))] = -1.0
        return labels
