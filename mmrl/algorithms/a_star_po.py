"""A*-PO: one response a prompt, regressed on its reward minus an offline estimate of V*.

arXiv 2505.20686. A phase with `value_estimates` stores V* of every prompt in the algorithm's state,
by sample id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, scorable
from mmrl.errors import UserError
from mmrl.objectives.value_regression import AStarPO
from mmrl.stage import Context, Need, Stage
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "regression on the optimal advantage, V* estimated offline"
PAPER = "arXiv 2505.20686"


class Params(Section):
    group_size: int = Field(1, gt=0)
    beta: float = Field(1e-3, gt=0, description="beta 2, of the regression")


def optimal_value(rewards: Sequence[float], beta: float) -> float:
    """V* = beta log mean exp(r / beta) over samples of the reference; their maximum at beta 0."""
    scores = np.asarray(rewards, dtype=float)
    top = scores.max()
    if beta == 0:
        return float(top)
    return float(top + beta * np.log(np.exp((scores - top) / beta).mean()))


@dataclass(frozen=True)
class AboveOptimal(Stage):
    """The reward minus V* of the prompt [G]; a prompt without an estimate raises UserError."""

    needs: ClassVar[frozenset[Need]] = frozenset({"value_estimates"})

    def __call__(self, group: Group, context: Context) -> Floats:
        sample = group.prompt.sample.id
        estimates = context.state.get("value_estimates", {})
        if sample not in estimates:
            raise UserError(f"no estimate of '{sample}': run a phase with value_estimates first")
        rewards = group.rewards
        return np.where(scorable(rewards), rewards - estimates[sample], 0.0)


def build(params: Params) -> Algorithm:
    """Fill credit and objective."""
    return Algorithm(
        name="a_star_po",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(AboveOptimal()),
        objective=AStarPO(params.beta),
    )
