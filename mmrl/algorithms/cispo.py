"""CISPO: REINFORCE weighted by the clipped ratio; clipping never drops a token.

MiniMax-M1, arXiv 2506.13585. Its cap is not published: `paper` and `trl` read it as a bound of the
ratio itself, with none from below; verl bounds both sides at 0.8 and 1.28.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import PRESETS, FixedGroup, GroupCredit, GroupRelative, Numerics
from mmrl.objective import Reducer
from mmrl.objectives.bounded_weight import CISPO
from mmrl.validation import Section

SUMMARY = "clips the importance weight, not the gradient"
PAPER = "arXiv 2506.13585"


class Params(Section):
    group_size: int = Field(16, gt=0)
    numerics: Numerics = "paper"


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    verl = params.numerics == "verl"
    return Algorithm(
        name="cispo",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative(PRESETS[params.numerics].normalise)),
        objective=CISPO(high=1.28, low=0.8) if verl else CISPO(high=5.0),
        reducer=Reducer("token-mean"),
    )
