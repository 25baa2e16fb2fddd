"""ODPO: DPO with an offset, so that pairs come apart by what they earned. arXiv 2402.10571.

With `weigh` a pair counts as often as its reward gap is large, with or without the offset.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.pairs import Paired, PairParams, on_pairs
from mmrl.objectives.reward_gaps import Margins

SUMMARY = "DPO whose pairs come apart by their reward gap, or count by it"
PAPER = "arXiv 2402.10571"


class Params(PairParams):
    offset: float = Field(1.0, ge=0, description="times the reward gap; 0: none")
    scale: Literal["linear", "log"] = Field("linear", description="of the gap in the offset")
    weigh: bool = Field(False, description="a pair's loss times its reward gap")


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    objective = Margins(params.beta, offset=params.offset, scale=params.scale, weigh=params.weigh)
    return on_pairs("odpo", params, objective, Paired(params.pairs, earned=True))
