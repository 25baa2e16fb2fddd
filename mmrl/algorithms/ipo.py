"""IPO on the best and the worst response to each prompt.

arXiv 2310.12036. TRL averages log-probs over tokens, OpenRLHF sums them.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup
from mmrl.algorithms.stages.pairs import Paired, Selection
from mmrl.objective import Reducer
from mmrl.objectives.preference import Preference
from mmrl.validation import Section

SUMMARY = "squared preference loss of the best and the worst response"
PAPER = "arXiv 2310.12036"


class Params(Section):
    group_size: int = Field(8, gt=1)
    pairs: Selection = Field("best_worst", description="which two responses are a pair")
    beta: float = Field(0.1, gt=0)
    average: bool = Field(False, description="mean instead of summed log-probs")


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    return Algorithm(
        name="ipo",
        plan=FixedGroup(params.group_size),
        credit=Paired(params.pairs),
        objective=Preference("ipo", params.beta, params.average),
        reducer=Reducer("group-mean"),
    )
