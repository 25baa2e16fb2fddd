"""RPO, the reward-aware one: implied margins are brought to reward gaps.

Nemotron-4 340B, arXiv 2406.11704; Sun et al., arXiv 2502.00203. RPO is also the name of regularised
preference optimisation: `rpo_regularised`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.pairs import Paired, PairParams, on_pairs
from mmrl.objectives.reward_gaps import RewardAware

SUMMARY = "reward-aware preference optimisation: margins follow reward gaps"
PAPER = "arXiv 2406.11704"


class Params(PairParams):
    scale: float = Field(1.0, gt=0, description="eta, of the reward gap")
    distance: Literal["kl", "squared"] = "kl"


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    objective = RewardAware(params.beta, scale=params.scale, distance=params.distance)
    return on_pairs("rpo_reward_aware", params, objective, Paired(params.pairs, earned=True))
