"""How often the policy answers each record right: a phase that samples and trains nothing.

What comes after it asks what still fails (`sampler: failed`): iterative fine-tuning on hard samples
as in Skywork R1V, arXiv 2504.05599. The phase ends when every sample was asked once.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, outcomes, scorable
from mmrl.algorithms.stages.estimates import EachOnce, Note
from mmrl.algorithms.stages.samplers import PASS_RATES
from mmrl.objectives.likelihood import Likelihood
from mmrl.stage import Stage
from mmrl.types import Group
from mmrl.validation import Section

SUMMARY = "asks every sample once and notes how often it is right, trains nothing"
PAPER = "arXiv 2504.05599"


class Params(Section):
    group_size: int = Field(4, gt=0)
    part: str | None = Field(None, description="reward part that says right or wrong")


@dataclass(frozen=True)
class PassRate(Stage):
    """The share of a group's answers that are right; None without a scorable one."""

    part: str | None = None

    def __call__(self, group: Group) -> float | None:
        right = outcomes(group, self.part)
        known = right[scorable(right)]
        return float((known >= 1).mean()) if len(known) else None


def build(params: Params) -> Algorithm:
    """Fill the prompt sampler and credit."""
    return Algorithm(
        name="pass_rate_estimates",
        sampler=EachOnce(PASS_RATES, anew=True),
        plan=FixedGroup(params.group_size),
        credit=Note(PASS_RATES, PassRate(params.part)),
        objective=Likelihood(),
    )
