"""f-DPG: towards the reference weighed by rewards, by the gradient of an f-divergence.

arXiv 2302.08215; `kl` is GDC's objective (arXiv 2012.11635), `reverse_kl` that of RL with KL
penalties.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import GroupCredit, RawReward
from mmrl.algorithms.stages.pairs import GroupParams, on_pairs
from mmrl.objectives.target_distribution import FDPG, Divergence

SUMMARY = "policy gradient of an f-divergence to the rewarded reference"
PAPER = "arXiv 2302.08215"


class Params(GroupParams):
    beta: float = Field(0.1, gt=0, description="temperature of the rewards in the target")
    divergence: Divergence = "js"


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    objective = FDPG(params.beta, params.divergence)
    return on_pairs("f_dpg", params, objective, GroupCredit(RawReward()), always_on_policy=True)
