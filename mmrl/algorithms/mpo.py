"""MPO: preference, quality and generation losses on the best and the worst response (a variant).

Mixed preference optimisation, arXiv 2411.10442; with GRPO in turns, it is the hybrid of Skywork
R1V2, arXiv 2504.16656.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup
from mmrl.algorithms.stages.pairs import Paired, Selection
from mmrl.objective import Reducer
from mmrl.objectives.mixed_preference import MPO
from mmrl.validation import Section

SUMMARY = "preference, quality and generation losses in one (variant)"
PAPER = "arXiv 2411.10442"


class Params(Section):
    group_size: int = Field(8, gt=1)
    pairs: Selection = Field("best_worst", description="which two responses are a pair")
    beta: float = Field(0.1, gt=0)
    preference: float = Field(0.8, ge=0)
    quality: float = Field(0.2, ge=0)
    generation: float = Field(1.0, ge=0)


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    return Algorithm(
        name="mpo",
        plan=FixedGroup(params.group_size),
        credit=Paired(params.pairs),
        objective=MPO(params.beta, params.preference, params.quality, params.generation),
        reducer=Reducer("group-mean"),
    )
