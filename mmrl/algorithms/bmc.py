"""BMC: DPO in which the tokens that tell two answers apart count more. arXiv 2408.07471.

The modelling phase. What it bridges, an answer made of the losing one in the light of the winning
one, comes as `chosen` of the records (docs/preferences.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.pairs import GroupParams, Paired, on_pairs
from mmrl.objectives.weighted_tokens import BMC, DIFFERENCES
from mmrl.types import Floats, Group, Ints

SUMMARY = "DPO with more weight on tokens that differ and that the policy is unsure of"
PAPER = "arXiv 2408.07471"


class Params(GroupParams):
    beta: float = Field(0.1, gt=0)
    delta: float = Field(3.0, ge=0, description="the largest weight that a token gets besides 1")


@dataclass(frozen=True)
class WithDifferences(Paired):
    """The best and the worst response, and 1 on every token [T] that the other does not have."""

    gives: ClassVar[str] = DIFFERENCES

    def second(self, group: Group, ranks: Floats) -> list[Floats]:
        found = [np.zeros(len(response.ids)) for response in group.responses]
        if np.isfinite(ranks).any():
            best, worst = int(np.nanargmax(ranks)), int(np.nanargmin(ranks))
            pair = differing(group.responses[best].ids, group.responses[worst].ids)
            found[best], found[worst] = pair
        return found


def differing(first: Ints, second: Ints) -> tuple[Floats, Floats]:
    """1 on the tokens [T] of each sequence that an alignment of both leaves over, 0 elsewhere."""
    over = (np.ones(len(first)), np.ones(len(second)))
    matcher = SequenceMatcher(None, first.tolist(), second.tolist(), autojunk=False)
    for block in matcher.get_matching_blocks():
        over[0][block.a : block.a + block.size] = 0.0
        over[1][block.b : block.b + block.size] = 0.0
    return over


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    return on_pairs("bmc", params, BMC(params.beta, params.delta), WithDifferences())
