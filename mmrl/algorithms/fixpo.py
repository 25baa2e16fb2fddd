"""FixPO: a KL to the old policy whose weight adapts, and updates that bring back what it let go.

arXiv 2312.05405. After a step's updates, further ones of the KL alone follow while any token's
KL(old || policy) is above `trust`, at most `fixes`. The weight is multiplied by exp(`rate` x
(`margin` x largest KL / trust - 1)) after each step, so that it settles where the KL is `trust` /
`margin` (the paper moves the weight itself by a gradient; a variant). Advantages are the group's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.mdpo import WithKLWeight
from mmrl.algorithms.stages.credit import FixedGroup
from mmrl.objective import Reducer
from mmrl.objectives.mirror_descent import HeldByKL
from mmrl.stage import Context
from mmrl.validation import Section

SUMMARY = "an adaptive KL to the old policy, and updates that keep every token within it (variant)"
PAPER = "arXiv 2312.05405"


class Params(Section):
    group_size: int = Field(8, gt=1)
    trust: float = Field(0.2, gt=0, description="largest KL(old || policy) of a token, in nats")
    fixes: int = Field(8, ge=0, description="most updates that bring tokens back")
    margin: float = Field(3.0, ge=1, description="how far below `trust` the largest KL is wanted")
    rate: float = Field(0.1, ge=0, description="of the weight's change")
    first: float = Field(1.0, gt=0, description="weight of the KL in the first step")
    passes: int = Field(4, gt=0, description="updates of a step before that")


@dataclass(frozen=True)
class AdaptiveWeight(WithKLWeight):
    """Group-relative advantages, and a KL weight that follows the largest KL of each step."""

    trust: float = 0.2
    margin: float = 3.0
    rate: float = 0.1

    def learnt(self, divergence: float, context: Context) -> None:
        context.state["kl_weight"] = moved(
            self.weight(context), self.margin * divergence / self.trust, self.rate
        )


@dataclass(frozen=True)
class Remembered:
    """The weight that the last step left, at first `first`."""

    first: float = 1.0

    def __call__(self, context: Context) -> float:
        return float(context.state.get("kl_weight", self.first))


def moved(weight: float, share: float, rate: float) -> float:
    """The weight after a step whose largest KL is `share` of what is wanted; at most e times it."""
    return weight * exp(min(rate * (share - 1), 1.0))


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and updates."""
    return Algorithm(
        name="fixpo",
        plan=FixedGroup(params.group_size),
        credit=AdaptiveWeight(Remembered(params.first), params.trust, params.margin, params.rate),
        objective=HeldByKL("from_old"),
        reducer=Reducer("token-mean"),
        updates=Updates(passes=params.passes, trust=params.trust, fixes=params.fixes),
    )
