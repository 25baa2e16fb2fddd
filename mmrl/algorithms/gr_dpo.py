"""Group-robust DPO and IPO: kinds of prompts on which the loss is large count more.

GRPO of Ramesh et al., arXiv 2405.20304 (not the GRPO of DeepSeekMath). A kind's weight is
multiplied by exp(`rate` x its mean loss in the step), and the weights add up to 1; a pair counts by
its kind's weight over the kind's share of the step's pairs. Losses are those of the step's start.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.pairs import GroupParams, Paired, on_pairs, on_tokens
from mmrl.algorithms.stages.policy_view import Implied, seen
from mmrl.errors import UserError
from mmrl.objectives.worst_group import KIND_WEIGHT, GroupRobust
from mmrl.stage import Context, Need
from mmrl.types import Floats, Group, TrainSample

SUMMARY = "DPO that weighs kinds of prompts by their losses, the worst most"
PAPER = "arXiv 2405.20304"
LEAST = 1e-300
"""A weight that a kind may come back from."""


class Params(GroupParams):
    beta: float = Field(0.1, gt=0)
    loss: Literal["dpo", "ipo"] = "dpo"
    rate: float = Field(0.01, ge=0, description="how fast weights follow losses")
    kind: str = Field(
        "",
        description="what names a prompt's kind: `kind`, a column of the records, or what its task "
        "says of it; default: its task",
    )


@dataclass(frozen=True)
class WithKindWeights(Paired):
    """The best and the worst response, and the weight of the prompt's kind on every token [T]."""

    loss: Literal["dpo", "ipo"] = "dpo"
    beta: float = 0.1
    rate: float = 0.01
    kind: str = ""

    needs: ClassVar[frozenset[Need]] = frozenset({"implied"})
    gives: ClassVar[str] = KIND_WEIGHT

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        ranks = [self.ranks(group.rewards) for group in groups]
        losses = self._losses(groups, ranks)
        state = context.state.setdefault("kind_weights", {})
        weights = moved_weights(state, losses, self.rate)
        state.update(weights)
        count = sum(map(len, losses.values()))
        made = []
        for index, (group, own) in enumerate(zip(groups, ranks, strict=True)):
            kind = self._kind(group)
            share = len(losses.get(kind, ())) / max(count, 1)
            weight = weights[kind] / share if share else 0.0
            seconds = on_tokens(group, np.full(len(group.responses), weight))
            samples = zip(self.samples(group, index, own), seconds, strict=True)
            made += [replace(sample, second=each) for sample, each in samples]
        return made

    def _losses(self, groups: list[Group], ranks: list[Floats]) -> Mapping[str, list[float]]:
        """The losses of the step's pairs by their kind."""
        found: dict[str, list[float]] = defaultdict(list)
        for group, own in zip(groups, ranks, strict=True):
            if np.isfinite(own).any():
                implied = seen(group, Implied, "implied").values
                margin = implied[int(np.nanargmax(own))] - implied[int(np.nanargmin(own))]
                found[self._kind(group)].append(self._loss(float(margin)))
        return found

    def _loss(self, margin: float) -> float:
        if self.loss == "ipo":
            return (margin - 1 / (2 * self.beta)) ** 2
        return float(np.logaddexp(0.0, -self.beta * margin))

    def _kind(self, group: Group) -> str:
        sample = group.prompt.sample
        if self.kind and self.kind not in sample.meta:
            raise UserError(
                f"gr_dpo: sample '{sample.id}' has no '{self.kind}': records say it in a column "
                "`kind`, data.columns: {kind: NAME} names another; algorithm.kind: kind reads it"
            )
        return str(sample.meta[self.kind]) if self.kind else sample.task


def moved_weights(
    before: Mapping[str, float], losses: Mapping[str, list[float]], rate: float
) -> dict[str, float]:
    """Weights of all kinds after a step with these losses; new kinds start with the mean weight."""
    kinds = sorted({*before, *losses})
    start = float(np.mean(list(before.values()))) if before else 1.0
    # As logs: a loss of 2,500, which IPO has, is beyond what exp can do.
    held = np.array([max(before.get(kind, start), LEAST) for kind in kinds])
    grown = np.array([rate * float(np.mean(losses.get(kind) or [0.0])) for kind in kinds])
    logs = np.log(held) + grown
    weights = np.exp(logs - np.logaddexp.reduce(logs)) if kinds else logs
    return {kind: float(weight) for kind, weight in zip(kinds, weights, strict=True)}


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    credit = WithKindWeights(loss=params.loss, beta=params.beta, rate=params.rate, kind=params.kind)
    return on_pairs("gr_dpo", params, GroupRobust(params.beta, params.loss), credit)
