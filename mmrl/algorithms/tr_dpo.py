"""TR-DPO: DPO whose reference follows the policy, softly or at once. arXiv 2404.09656.

`soft` puts `alpha` of the policy into the reference, `hard` the whole, after every `every` steps.
`reference: {average, every}` of a run goes before.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mmrl.algorithm import Algorithm, Follows
from mmrl.algorithms.stages.pairs import PairParams, on_pairs
from mmrl.objectives.preference import Preference

SUMMARY = "DPO or IPO against a reference that follows the policy"
PAPER = "arXiv 2404.09656"


class Params(PairParams):
    loss: Literal["dpo", "ipo"] = "dpo"
    update: Literal["soft", "hard"] = "soft"
    alpha: float = Field(0.6, gt=0, lt=1, description="share of the policy in a soft update")
    every: int = Field(512, gt=0, description="tau, steps between updates of the reference")


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and how the reference follows."""
    stays = 1 - params.alpha if params.update == "soft" else 0.0
    objective = Preference(params.loss, params.beta)
    return on_pairs("tr_dpo", params, objective, follows=Follows(params.every, stays))
