"""RL^V: RLOO, and the policy learns to verify its own answers as it goes.

arXiv 2505.04842. Every answer of a step is also a question, whether it is right, and its verdict a
completion that is learnt by likelihood, beside the policy's gradient. An evaluation then asks the
policy about its own answers and weighs their votes (`mmrl eval`, `verify`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, LeaveOneOut
from mmrl.algorithms.stages.verification import QUESTION, WithVerdicts
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "RLOO that also learns to verify its own answers"
PAPER = "arXiv 2505.04842"


class Params(Section):
    group_size: int = Field(4, gt=1)
    single: Literal["zero", "raw"] = Field(
        "zero", description="advantage of a lone scorable answer; raw is its reward"
    )
    verdict_weight: float = Field(
        1.0, ge=0, description="of a verdict's log-likelihood, beside an advantage of 1"
    )
    question: str = Field(QUESTION, min_length=1, description="behind the answer to be verified")
    part: str | None = Field(None, description="reward part that says right or wrong")


def build(params: Params) -> Algorithm:
    """Fill credit, objective and KL (k1, in the reward)."""
    credit = GroupCredit(LeaveOneOut(params.single))
    return Algorithm(
        name="rl_v",
        plan=FixedGroup(params.group_size),
        credit=WithVerdicts(credit, params.verdict_weight, params.question, part=params.part),
        objective=Clipped(ratio="sequence-sum"),
        kl=KL(0.05, "k1", "reward"),
    )
