"""H-DPO: DPO with a weight for the policy's entropy. arXiv 2411.07595."""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.pairs import PairParams, on_pairs
from mmrl.objectives.entropy_control import HDPO

SUMMARY = "DPO whose regulariser weighs the policy's entropy apart"
PAPER = "arXiv 2411.07595"


class Params(PairParams):
    alpha: float = Field(0.95, gt=0, description="weight of the entropy; below 1: sharper")


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    return on_pairs("h_dpo", params, HDPO(params.beta, params.alpha))
