"""REINFORCE++ with baseline: group-centred rewards, normalised over all tokens of the batch.

arXiv 2501.03262. A group of equal rewards may get a small advantage: the token-weighted mean of
the batch is not 0. The KL is a loss of its own.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, Whitened
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "group-centred rewards, normalised over the batch"
PAPER = "arXiv 2501.03262"


class Params(Section):
    group_size: int = Field(8, gt=1)
    ddof: int = Field(1, ge=0, le=1)


def build(params: Params) -> Algorithm:
    """Fill credit, objective and KL (k2, in the loss)."""
    return Algorithm(
        name="reinforce_pp_baseline",
        plan=FixedGroup(params.group_size),
        credit=Whitened(params.ddof),
        objective=Clipped(),
        kl=KL(0.01, "k2"),
    )
