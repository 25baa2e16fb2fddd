"""DPO on the best and the worst response to each prompt. arXiv 2305.18290."""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup
from mmrl.algorithms.stages.pairs import Paired, Selection
from mmrl.objective import Reducer
from mmrl.objectives.preference import Preference
from mmrl.validation import Section

SUMMARY = "preference of the best over the worst response"
PAPER = "arXiv 2305.18290"


class Params(Section):
    group_size: int = Field(8, gt=1)
    pairs: Selection = Field("best_worst", description="which two responses are a pair")
    beta: float = Field(0.1, gt=0)


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    return Algorithm(
        name="dpo",
        plan=FixedGroup(params.group_size),
        credit=Paired(params.pairs),
        objective=Preference("dpo", params.beta),
        reducer=Reducer("group-mean"),
    )
