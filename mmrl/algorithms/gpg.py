"""GPG: plain policy gradient, corrected for the groups that carry no signal.

arXiv 2504.02546. alpha = samples / samples of groups with unequal rewards; verl counts samples
with a reward other than 0 instead (`numerics: verl`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, centre, is_uniform, pair
from mmrl.algorithms.stages.editors import EnoughSignal
from mmrl.objective import Reducer
from mmrl.objectives.likelihood import Likelihood
from mmrl.stage import Context, Stage
from mmrl.types import Floats, Group, TrainSample
from mmrl.validation import Section

SUMMARY = "no clip, no KL; the loss is scaled up for groups without signal"
PAPER = "arXiv 2504.02546"

Count = Literal["paper", "verl"]


class Params(Section):
    group_size: int = Field(8, gt=1)
    enough: float = Field(0.6, ge=0, le=1, description="share of groups with signal to wait for")
    numerics: Count = "paper"


@dataclass(frozen=True)
class CorrectedForSignal(Stage):
    """Centred rewards times alpha; without any signal they are 0 and the step does nothing."""

    count: Count = "paper"

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        scale = alpha([group.rewards for group in groups], self.count)
        return [
            sample
            for index, group in enumerate(groups)
            for sample in pair(group, scale * centre(group.rewards), index)
        ]


def alpha(rewards: Sequence[Floats], count: Count = "paper") -> float:
    """Samples over samples with signal, given the rewards [G] of every group; 0 without any."""
    total = sum(len(r) for r in rewards)
    if count == "verl":
        signal = sum(int(np.count_nonzero(np.nan_to_num(r))) for r in rewards)
    else:
        signal = sum(len(r) for r in rewards if not is_uniform(r))
    return total / signal if signal else 0.0


def build(params: Params) -> Algorithm:
    """Fill editing, credit, objective and reducer."""
    return Algorithm(
        name="gpg",
        plan=FixedGroup(params.group_size),
        edit=(EnoughSignal(params.enough),),
        credit=CorrectedForSignal(params.numerics),
        objective=Likelihood(),
        reducer=Reducer("token-mean"),
    )
