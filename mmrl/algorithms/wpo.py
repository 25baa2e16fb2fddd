"""WPO: DPO in which pairs count by how likely the policy is to write them. arXiv 2406.11827."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.pairs import Paired, PairParams, on_pairs
from mmrl.algorithms.stages.policy_view import Collision, seen
from mmrl.objectives.on_policy_weights import COLLISION, WPO
from mmrl.stage import Need
from mmrl.types import Floats, Group

SUMMARY = "DPO weighted by how likely the policy is to write both answers"
PAPER = "arXiv 2406.11827"


class Params(PairParams):
    pass


@dataclass(frozen=True)
class WithCollision(Paired):
    """Pairs, and log sum p^2 of the policy at every token [T]."""

    needs: ClassVar[frozenset[Need]] = frozenset({"collision"})
    gives: ClassVar[str] = COLLISION

    def second(self, group: Group, ranks: Floats) -> Sequence[Floats]:
        return seen(group, Collision, "collision").values


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    return on_pairs("wpo", params, WPO(params.beta), WithCollision(params.pairs))
