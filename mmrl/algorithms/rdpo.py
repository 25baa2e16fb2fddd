"""rDPO: DPO whose loss is, in expectation, that of labels without flips. arXiv 2403.00409."""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.pairs import PairParams, on_pairs
from mmrl.objectives.noisy_labels import NoisyLabels

SUMMARY = "DPO that makes up for a share of flipped labels"
PAPER = "arXiv 2403.00409"


class Params(PairParams):
    flipped: float = Field(0.1, ge=0, lt=0.5, description="share of labels that are wrong")
    unbiased: bool = Field(True, description="False: cDPO, the expectation over the flips")


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    return on_pairs("rdpo", params, NoisyLabels(params.beta, params.flipped, params.unbiased))
