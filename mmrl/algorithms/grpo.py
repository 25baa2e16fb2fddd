"""GRPO: group-relative advantages, clipped ratio, optional KL towards the reference.

DeepSeekMath, arXiv 2402.03300, equations 3 and 4.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import PRESETS, FixedGroup, GroupCredit, GroupRelative, Numerics
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "group-relative advantages with a clipped ratio"
PAPER = "arXiv 2402.03300"


class Params(Section):
    group_size: int = Field(8, gt=0)
    numerics: Numerics = "paper"


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and KL as the numeric preset says."""
    preset = PRESETS[params.numerics]
    return Algorithm(
        name="grpo",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative(preset.normalise)),
        objective=Clipped(dual=preset.dual_clip),
        reducer=preset.reducer,
        kl=KL(clamp=preset.kl_clamp),
    )
