"""RS-DPO: pairs by rejection, those whose rewards are far enough apart. arXiv 2402.10038.

Every two of a prompt's answers are a pair if sigmoid(reward gap / `tau`) is above `eta`. `tau` is
of the scale of the reward: with rewards of 0 and 1, tau 0.5 and eta 0.8 want a gap of 0.69.
"""

from __future__ import annotations

import math

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.pairs import GroupParams, Paired, on_pairs
from mmrl.objectives.reward_gaps import Margins

SUMMARY = "DPO on all pairs of sampled answers whose reward gap is large"
PAPER = "arXiv 2402.10038"


class Params(GroupParams):
    group_size: int = Field(16, gt=1)
    beta: float = Field(0.1, gt=0)
    eta: float = Field(0.8, gt=0.5, lt=1, description="least sigmoid(reward gap / tau) of a pair")
    tau: float = Field(0.5, gt=0)


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    least = params.tau * math.log(params.eta / (1 - params.eta))
    objective = Margins(params.beta, least, offset=0.0)
    return on_pairs("rs_dpo", params, objective, Paired("all", earned=True))
