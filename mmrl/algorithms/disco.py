"""DisCO: discriminative scores of right against wrong answers, under a KL constraint.

arXiv 2505.12366. Groups of one class have no score but stay in the divisor. Right and wrong are
the sign of the centred outcome, so rewards must be 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, outcomes, scorable
from mmrl.errors import UserError
from mmrl.objective import Reducer
from mmrl.objectives.discriminative import DisCO
from mmrl.stage import Context, Stage
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "separates right from wrong answers by their scores, KL as a constraint"
PAPER = "arXiv 2505.12366"


class Params(Section):
    group_size: int = Field(8, gt=1)
    score: Literal["log-likelihood", "likelihood-ratio"] = "log-likelihood"
    tau: float | None = Field(10.0, gt=0, description="null: DisCO-b; 1 suits the ratio")
    beta: float = Field(1000.0, ge=0)
    delta: float = Field(1e-4, ge=0)
    part: str | None = Field(None, description="reward part that says right (1) or wrong (0)")


@dataclass(frozen=True)
class Labels(Stage):
    """+1 for right and -1 for wrong answers [G]; outcomes other than 0 and 1 raise UserError."""

    part: str | None = None

    def __call__(self, group: Group, context: Context) -> Floats:
        values = outcomes(group, self.part)
        known = scorable(values)
        if not np.isin(values[known], (0.0, 1.0)).all():
            raise UserError(
                "disco needs outcomes that are 0 or 1: name the reward part in algorithm.part"
            )
        return np.where(known, 2 * np.nan_to_num(values) - 1, 0.0)


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and updates."""
    return Algorithm(
        name="disco",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(Labels(params.part)),
        objective=DisCO(params.score, params.tau, params.beta, params.delta),
        reducer=Reducer("group-mean"),
        updates=Updates(mini_batches=2),
    )
