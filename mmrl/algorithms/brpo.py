"""BRPO: credit by thinking budget, against a response's own past and against its group.

AnytimeReasoner, arXiv 2505.13438. Thinking is cut at budgets, and summaries (answers) are asked
for at every cut. Steps of a response are its thinking segments, each with the mean score of the
summaries at its cut; summaries are groups of their own, with centred rewards, or, one a cut, set
against the mean of their budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from mmrl.algorithm import Algorithm, Cuts
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, centre, scorable
from mmrl.algorithms.stages.lengths import OfLongest
from mmrl.algorithms.stages.turns import by_turn
from mmrl.errors import UserError
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Need, Stage, needed
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "budget-relative advantages of thinking segments"
PAPER = "arXiv 2505.13438"


class Params(Section):
    group_size: int = Field(8, gt=0)
    prior: Literal["uniform", "linear"] = Field("uniform", description="chances of the budgets")
    budgets: Annotated[tuple[int, ...], OfLongest(10_000)] = Field(
        (2000, 4000, 6000, 8000), min_length=1, description="tokens, of thinking alone"
    )
    summaries: int = Field(4, gt=0, description="answers at every cut")
    marker: str = Field("</think>", min_length=1, description="what ends thinking")
    closing: str = Field("\n</think>\n", description="what is written where thinking is cut")

    @model_validator(mode="after")
    def _budgets_grow(self) -> Params:
        if self.budgets[0] <= 0 or sorted(set(self.budgets)) != list(self.budgets):
            raise ValueError("budgets are numbers of tokens that grow")
        return self


@dataclass(frozen=True)
class BudgetRelative(Stage):
    """Advantages [T]: every thinking segment gets that of its budget, an answer its own [G].

    Only chains of which all cuts were scored are compared.
    """

    prior: Literal["uniform", "linear"]

    needs: ClassVar[frozenset[Need]] = frozenset({"steps"})

    def __call__(self, group: Group, context: Context) -> list[Floats] | Floats:
        if group.extra.baseline is not None:
            return self._answers(group.rewards, group.extra.baseline)
        spans = needed(group.extra.steps, "steps")
        if len({len(row) for row in spans}) > 1:
            raise UserError("brpo needs the same number of thinking segments in every response")
        scores = np.array([[span.value or 0.0 for span in row] for row in spans])
        known = scorable(group.rewards)
        values = np.zeros_like(scores)
        values[known] = budget_advantages(scores[known], chances(scores.shape[1], self.prior))
        return [
            by_turn(response, row, value.tolist())
            for response, row, value in zip(group.responses, spans, values, strict=True)
        ]

    def _answers(self, rewards: Floats, baseline: float) -> Floats:
        """Against the others at the same cut; alone there, against the mean of the budget."""
        alone = scorable(rewards) & (scorable(rewards).sum() == 1)
        return np.where(alone, rewards - baseline, centre(rewards))


def chances(count: int, prior: Literal["uniform", "linear"]) -> Floats:
    """Probability [count] of each budget, the shortest first; linear favours long ones."""
    weights = np.ones(count) if prior == "uniform" else np.arange(1.0, count + 1)
    return np.asarray(weights / weights.sum())


def own_past(scores: Floats, prior: Floats) -> Floats:
    """V1 [G, S]: a response's earlier scores, later ones counting double, times what is left."""
    powers = 2.0 ** np.arange(scores.shape[1])
    before = np.cumsum(scores * powers, axis=1) - scores * powers
    weights = np.cumsum(powers) - powers
    return np.asarray(before / np.maximum(weights, 1.0) * _left(prior))


def returns(scores: Floats, prior: Floats) -> Floats:
    """Expected score [G, S] over the budgets from each one on."""
    return np.asarray(np.cumsum((scores * prior)[:, ::-1], axis=1)[:, ::-1])


def budget_advantages(scores: Floats, prior: Floats) -> Floats:
    """Advantages [G, S]: returns minus a mix of own past and group mean; alone, own past and 0."""
    count = scores.shape[1]
    reached = returns(scores, prior)
    place = np.arange(count)
    group = reached.mean(axis=0) if len(scores) > 1 else np.zeros(count)
    baseline = (place * own_past(scores, prior) + (count - place) * group) / count
    return np.asarray(reached - baseline)


def _left(prior: Floats) -> Floats:
    return np.asarray(np.cumsum(prior[::-1])[::-1])


def build(params: Params) -> Algorithm:
    """Fill cuts and credit."""
    # Budgets that follow a short limit may fall together.
    budgets = tuple(dict.fromkeys(params.budgets))
    return Algorithm(
        name="brpo",
        plan=FixedGroup(params.group_size),
        cuts=Cuts(budgets, params.summaries, params.marker, params.closing),
        credit=GroupCredit(BudgetRelative(params.prior)),
        objective=Clipped(),
    )
