"""OTC: right answers earn more the fewer tools they called.

OTC-PO, arXiv 2504.14870. `form: ppo` looks at a response alone; `form: grpo` compares with the
fewest calls among right responses to the question so far, kept in the algorithm's state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative, outcomes
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Stage, with_rewards
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "multiplies the reward by how few tools were called"
PAPER = "arXiv 2504.14870"

Form = Literal["ppo", "grpo"]


class Params(Section):
    group_size: int = Field(8, gt=1)
    form: Form = "grpo"
    alpha: float = Field(1.0, gt=0)
    limit: int = Field(4, gt=0, description="most tool calls a response may make")
    marker: str = Field("<tool_call>", description="what opens a tool call in a response")
    part: str | None = Field(None, description="reward part that says right or wrong")


@dataclass(frozen=True)
class FewTools(Stage):
    """Rewards [G] = alpha x tool factor x outcome."""

    form: Form
    alpha: float
    limit: int
    marker: str
    part: str | None = None

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        fewest: dict[str, int] = context.state.setdefault("fewest_calls", {})
        return [with_rewards(group, self._rewards(group, fewest)) for group in groups]

    def _rewards(self, group: Group, fewest: dict[str, int]) -> Floats:
        calls = [response.text.count(self.marker) for response in group.responses]
        right = outcomes(group, self.part)
        if self.form == "ppo":
            factors = [alone(m, self.limit) for m in calls]
        else:
            key = group.prompt.sample.id
            seen = [m for m, r in zip(calls, right, strict=True) if r > 0]
            if seen or key in fewest:
                fewest[key] = min([*seen, *([fewest[key]] if key in fewest else [])])
            # Without a right response yet every outcome is 0, and so is the product.
            factors = [compared(m, fewest.get(key, 0), self.limit) for m in calls]
        return self.alpha * np.array(factors) * right


def alone(calls: int, limit: int) -> float:
    """cos(m pi / (2 m + c)): 1 without a call, 1/2 at the limit."""
    return float(np.cos(calls * np.pi / (2 * calls + limit)))


def compared(calls: int, fewest: int, limit: int) -> float:
    """1 at the fewest calls a right response needed, less with more or fewer."""
    if fewest == 0:
        return 1.0 if calls == 0 else alone(calls, limit)
    place = 2 * fewest * calls / (calls + fewest)
    return float(np.sin(place * np.pi / (2 * fewest)))


def build(params: Params) -> Algorithm:
    """Fill shaping; the rest is GRPO."""
    few = FewTools(params.form, params.alpha, params.limit, params.marker, params.part)
    return Algorithm(
        name="otc",
        plan=FixedGroup(params.group_size),
        shape=(few,),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(),
    )
