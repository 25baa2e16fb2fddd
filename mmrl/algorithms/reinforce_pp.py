"""REINFORCE++: token returns with a KL penalty, normalised over the whole batch, no group baseline.

arXiv 2501.03262. verl has ddof 1, OpenRLHF ddof 0.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, TokenReturns
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "discounted token returns, normalised over the batch"
PAPER = "arXiv 2501.03262"


class Params(Section):
    group_size: int = Field(4, gt=0)
    gamma: float = Field(1.0, gt=0, le=1)
    ddof: int = Field(1, ge=0, le=1)


def build(params: Params) -> Algorithm:
    """Fill credit, objective and KL (k1, in the rewards of tokens)."""
    return Algorithm(
        name="reinforce_pp",
        plan=FixedGroup(params.group_size),
        credit=TokenReturns(params.gamma, params.ddof),
        objective=Clipped(),
        kl=KL(0.01, "k1", "token-reward"),
    )
