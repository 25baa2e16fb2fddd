"""AR and Lopti: keep unlikely tokens from dominating the gradient of the others.

arXiv 2505.12929. AR scales a token's advantage by its sampling probability; Lopti updates twice,
first on unlikely tokens, then on the others. `order: likely-first` is the negative threshold of
the released script.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.algorithms.stages.refiners import DampUnlikely
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.types import Bools, TrainSample
from mmrl.validation import Section

SUMMARY = "advantages scaled by token probability, two updates by token probability"
PAPER = "arXiv 2505.12929"


class Params(Section):
    group_size: int = Field(8, gt=1)
    alpha: float = Field(0.3, ge=0, le=1, description="AR: 0 leaves advantages as they are")
    threshold: float | None = Field(0.5, gt=0, lt=1, description="Lopti; null: a single update")
    order: Literal["unlikely-first", "likely-first"] = "unlikely-first"


@dataclass(frozen=True)
class ByProbability:
    """Select the tokens that were sampled with less than the threshold's probability, or not."""

    threshold: float
    unlikely: bool

    def __call__(self, sample: TrainSample) -> Bools:
        unlikely = np.exp(sample.response.logprobs) < self.threshold
        return unlikely if self.unlikely else ~unlikely


def build(params: Params) -> Algorithm:
    """Fill credit, refining, objective, KL and updates."""
    updates = Updates()
    if params.threshold is not None:
        first = params.order == "unlikely-first"
        passes = (
            ByProbability(params.threshold, first),
            ByProbability(params.threshold, not first),
        )
        updates = Updates(passes=2, filters=passes)
    return Algorithm(
        name="ar_lopti",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative()),
        refine=(DampUnlikely(params.alpha),) if params.alpha else (),
        objective=Clipped(low=0.2, high=0.24, dual=10.0),
        kl=KL(0.001),
        updates=updates,
    )
