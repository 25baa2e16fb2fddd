"""CPPO: train only on the responses with the largest advantages, on more questions instead.

arXiv 2503.22342. Pruning is per question; the released code prunes over what a process holds.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import PRESETS, FixedGroup, GroupCredit, GroupRelative, Numerics
from mmrl.algorithms.stages.refiners import KeepLargest
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "prunes responses with small advantages, fills up with more questions"
PAPER = "arXiv 2503.22342"


class Params(Section):
    group_size: int = Field(16, gt=1)
    pruned: float = Field(0.75, ge=0, lt=1, description="share of each group left out")
    fill: bool = Field(False, description="ask 1 / (1 - pruned) times as many questions")
    numerics: Numerics = "trl"


def build(params: Params) -> Algorithm:
    """Fill credit, refining, KL and updates."""
    return Algorithm(
        name="cppo",
        plan=FixedGroup(params.group_size),
        prompt_factor=questions_factor(params.pruned) if params.fill else 1.0,
        credit=GroupCredit(GroupRelative(PRESETS[params.numerics].normalise)),
        refine=(KeepLargest(params.pruned),),
        objective=Clipped(),
        kl=KL(0.04),
        updates=Updates(passes=2),
    )


def questions_factor(pruned: float) -> float:
    """How many times as many questions fill a batch of the same size."""
    return 1 / (1 - pruned)
