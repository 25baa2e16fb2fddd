"""Iterative DPO: pairs of the policy's own answers, against the policy of the last iteration.

Xu et al., arXiv 2312.16682; Xiong et al., arXiv 2312.11456; self-rewarding, arXiv 2401.10020. An
iteration is `every` steps, each on prompts of its own with answers sampled anew; `every: 0` keeps
the reference of the start, as Xiong et al. do.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm, Follows
from mmrl.algorithms.stages.pairs import PairParams, on_pairs
from mmrl.objectives.preference import Preference

SUMMARY = "DPO on answers sampled anew, the reference being the last iteration's policy"
PAPER = "arXiv 2312.16682"


class Params(PairParams):
    every: int = Field(100, ge=0, description="steps of an iteration; 0: the reference stays")


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and how the reference follows."""
    follows = Follows(params.every) if params.every else None
    objective = Preference("dpo", params.beta)
    return on_pairs("iterative_dpo", params, objective, follows=follows)
