"""DMPO: DPO of whole episodes in which early turns count more. arXiv 2406.14868."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.pairs import Paired, PairParams, on_pairs
from mmrl.algorithms.stages.turns import by_turn, turns
from mmrl.objectives.weighted_tokens import DMPO, TURN_WEIGHTS
from mmrl.stage import Need
from mmrl.types import Floats, Group

SUMMARY = "DPO of episodes with discounted turns"
PAPER = "arXiv 2406.14868"


class Params(PairParams):
    gamma: float = Field(0.9, gt=0, lt=1, description="how much less each later turn counts")


@dataclass(frozen=True)
class WithTurnWeights(Paired):
    """Pairs of episodes, and the weight of its turn on every token [T]."""

    gamma: float = 0.9

    needs: ClassVar[frozenset[Need]] = frozenset({"turns"})
    gives: ClassVar[str] = TURN_WEIGHTS

    def second(self, group: Group, ranks: Floats) -> list[Floats]:
        return [
            by_turn(response, spans, turn_weights(len(spans), self.gamma))
            for response, spans in zip(group.responses, turns(group), strict=True)
        ]


def turn_weights(count: int, gamma: float) -> list[float]:
    """(1 - gamma^(T - t)) / (1 - gamma^T) of the turns t from 0 of T."""
    return [(1 - gamma ** (count - t)) / (1 - gamma**count) for t in range(count)]


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    credit = WithTurnWeights(params.pairs, gamma=params.gamma)
    return on_pairs("dmpo", params, DMPO(params.beta), credit)
