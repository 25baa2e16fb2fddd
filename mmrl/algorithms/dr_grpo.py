"""Dr. GRPO: GRPO without its two biases, the standard deviation and the response length.

arXiv 2503.20783. The sum over tokens is divided by a constant, so a long wrong answer costs more
than a short one. TRL divides by the longest completion a run allows.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.algorithms.stages.lengths import OfLongest
from mmrl.objective import Reducer
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "centred rewards, token losses divided by a constant length"
PAPER = "arXiv 2503.20783"


class Params(Section):
    group_size: int = Field(8, gt=0)
    length: Annotated[float, OfLongest(3000)] = Field(
        3000, gt=0, description="tokens the loss of a response is divided by"
    )


def build(params: Params) -> Algorithm:
    """Fill credit and reducer."""
    return Algorithm(
        name="dr_grpo",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(GroupRelative(None)),
        objective=Clipped(),
        reducer=Reducer("constant", params.length),
    )
