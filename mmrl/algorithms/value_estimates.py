"""The offline phase of A*-PO: V* of every prompt from samples of the start.

arXiv 2505.20686. Nothing is trained; the phase ends when every sample was asked once.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.a_star_po import optimal_value
from mmrl.algorithms.stages.credit import FixedGroup, scorable
from mmrl.algorithms.stages.estimates import EachOnce, Note
from mmrl.objectives.likelihood import Likelihood
from mmrl.stage import Stage
from mmrl.types import Group
from mmrl.validation import Section

SUMMARY = "the offline phase of a_star_po: estimates V* of every prompt, trains nothing"
PAPER = "arXiv 2505.20686"


class Params(Section):
    group_size: int = Field(8, gt=0)
    beta: float = Field(0.5, ge=0, description="beta 1, of the estimate; 0: the best reward")


@dataclass(frozen=True)
class OptimalValue(Stage):
    """V* of a group's prompt; None without a scorable response."""

    beta: float

    def __call__(self, group: Group) -> float | None:
        known = group.rewards[scorable(group.rewards)]
        return optimal_value(known.tolist(), self.beta) if len(known) else None


def build(params: Params) -> Algorithm:
    """Fill the prompt sampler and credit."""
    return Algorithm(
        name="value_estimates",
        sampler=EachOnce("value_estimates"),
        plan=FixedGroup(params.group_size),
        credit=Note("value_estimates", OptimalValue(params.beta)),
        objective=Likelihood(),
    )
