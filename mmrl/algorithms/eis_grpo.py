"""EIS-GRPO: rollouts from equivalent initial states form one group (a variant).

J4R, arXiv 2505.13346. The official formula is not published; this follows a replication: the
advantage over all states plus the one within the state.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import PRESETS, FixedGroup, Numerics
from mmrl.algorithms.stages.variants import AcrossVariants, Change, Rewrites
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

SUMMARY = "equivalent initial states of a question form one group (variant)"
PAPER = "arXiv 2505.13346"


class Params(Section):
    group_size: int = Field(4, gt=0, description="responses to each state")
    variants: int = Field(2, gt=0)
    templates: tuple[str, ...] = Field((), description="other wordings; {text} is the question")
    changes: tuple[Change, ...] = Field((), description="rotations, flips, noise of pictures")
    change_share: float = Field(0.3, ge=0, le=1, description="variants with a changed picture")
    numerics: Numerics = "trl"


def build(params: Params) -> Algorithm:
    """Fill expansion and credit; the rest is GRPO."""
    return Algorithm(
        name="eis_grpo",
        expand=Rewrites(params.variants, params.templates, params.changes, params.change_share),
        plan=FixedGroup(params.group_size),
        credit=AcrossVariants(PRESETS[params.numerics].normalise, cross=False),
        objective=Clipped(),
    )
