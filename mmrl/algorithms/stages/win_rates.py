"""How often an answer wins against its group: by rewards, or as a pairwise judge says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmrl.algorithms.stages.credit import outcomes, scorable
from mmrl.stage import Context, Stage
from mmrl.types import Floats, Group

Form = Literal["rate", "centred", "log_odds"]


@dataclass(frozen=True)
class WinRates(Stage):
    """Win rates [G] of a group's answers, less 1/2 if `centred`, or the log of their odds.

    `part` names the reward part that is the win rate, such as that of a pairwise judge. Without,
    it is the share of the group, itself included, whose reward is lower, equal ones by half.
    Odds are those of rates within half an answer of 0 and 1.
    """

    form: Form = "centred"
    part: str | None = None

    def __call__(self, group: Group, context: Context) -> Floats:
        rates = win_rates(group.rewards) if self.part is None else outcomes(group, self.part)
        rates = np.where(scorable(group.rewards), rates, np.nan)
        if self.form == "log_odds":
            nearest = 0.5 / max(len(rates), 1)
            inside = np.clip(rates, nearest, 1 - nearest)
            rates = np.log(inside / (1 - inside))
        elif self.form == "centred":
            rates = rates - 0.5
        return np.nan_to_num(rates)


def win_rates(rewards: Floats) -> Floats:
    """The share of the scorable rewards [G] that each is above, equal ones by half; else NaN."""
    known = rewards[scorable(rewards)]
    if not len(known):
        return np.full(len(rewards), np.nan)
    won = (rewards[:, None] > known).mean(axis=1) + (rewards[:, None] == known).mean(axis=1) / 2
    return np.where(scorable(rewards), won, np.nan)
