"""DAPO: clip-higher, dynamic sampling, token-level loss, overlong filtering and punishment.

arXiv 2503.14476. verl does not cap the punishment (`numerics: verl`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.algorithms.stages.editors import AccuracyBand
from mmrl.algorithms.stages.lengths import OfLongest
from mmrl.algorithms.stages.refiners import MaskTruncated
from mmrl.algorithms.stages.shapers import SoftOverlong
from mmrl.objective import Reducer
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "clip-higher, groups with signal only, token-mean loss, soft length limit"
PAPER = "arXiv 2503.14476"


class Params(Section):
    group_size: int = Field(16, gt=1)
    longest: Annotated[float, OfLongest(20_480)] = Field(
        20_480, gt=0, description="response tokens that cost the full point"
    )
    cache: Annotated[float, OfLongest(20_480, "longest")] = Field(
        4_096, gt=0, description="tokens before that over which the cost rises"
    )
    part: str | None = Field(None, description="reward part that says right or wrong")
    numerics: Literal["paper", "verl"] = "paper"


def build(params: Params) -> Algorithm:
    """Fill shaping, editing, credit, refining, objective and reducer."""
    floor = -1.0 if params.numerics == "paper" else None
    return Algorithm(
        name="dapo",
        plan=FixedGroup(params.group_size),
        shape=(SoftOverlong(params.longest, params.cache, floor),),
        edit=(AccuracyBand(part=params.part),),
        credit=GroupCredit(GroupRelative()),
        refine=(MaskTruncated(),),
        objective=Clipped(low=0.2, high=0.28),
        reducer=Reducer("token-mean"),
    )
