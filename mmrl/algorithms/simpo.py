"""SimPO on the best and the worst response to each prompt. arXiv 2405.14734."""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup
from mmrl.algorithms.stages.pairs import Paired, Selection
from mmrl.objective import Reducer
from mmrl.objectives.reference_free import SimPO
from mmrl.validation import Section

SUMMARY = "preference by mean log-prob, without a reference"
PAPER = "arXiv 2405.14734"


class Params(Section):
    group_size: int = Field(8, gt=1)
    pairs: Selection = Field("best_worst", description="which two responses are a pair")
    beta: float = Field(2.0, gt=0)
    margin: float = Field(0.5, description="gamma")


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    return Algorithm(
        name="simpo",
        plan=FixedGroup(params.group_size),
        credit=Paired(params.pairs),
        objective=SimPO(params.beta, params.margin),
        reducer=Reducer("group-mean"),
    )
