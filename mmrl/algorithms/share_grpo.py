"""Share-GRPO: variants of a question share their rewards and their responses.

R1-ShareVL, arXiv 2505.16673. `numerics: code` counts each reward once per variant in the global
standard deviation, as the released code does.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, Normalise
from mmrl.algorithms.stages.variants import AcrossVariants, Change, Rewrites
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "hierarchical advantages over variants of a question, every response under every variant"
PAPER = "arXiv 2505.16673"


class Params(Section):
    group_size: int = Field(6, gt=0, description="responses to each variant")
    variants: int = Field(2, gt=0)
    templates: tuple[str, ...] = Field((), description="other wordings; {text} is the question")
    changes: tuple[Change, ...] = Field((), description="rotations, flips, noise of pictures")
    change_share: float = Field(0.3, ge=0, le=1, description="variants with a changed picture")
    numerics: Literal["paper", "code"] = "paper"


def build(params: Params) -> Algorithm:
    """Fill expansion, credit and objective (clip and dual clip as in its script)."""
    repeated = params.numerics == "code"
    return Algorithm(
        name="share_grpo",
        expand=Rewrites(params.variants, params.templates, params.changes, params.change_share),
        plan=FixedGroup(params.group_size),
        credit=AcrossVariants(Normalise(1, 1e-6), cross=True, repeated=repeated),
        objective=Clipped(low=0.2, high=0.3, dual=3.0),
    )
