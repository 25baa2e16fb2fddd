"""CPGD: clipped log-likelihood instead of a clipped ratio, and a drift towards the old policy.

arXiv 2505.12504. `weighting`: advantages over the standard deviation, or centred rewards times
the share of groups with variance (capped at 3, as released: it counts rows over groups, so the cap
holds from three responses on), or centred rewards as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.stages.credit import (
    FixedGroup,
    GroupCredit,
    GroupRelative,
    centre,
    is_uniform,
    pair,
)
from mmrl.objective import Reducer
from mmrl.objectives.clipped_likelihood import CPGD
from mmrl.stage import Context, Credit, Stage
from mmrl.types import Group, TrainSample
from mmrl.validation import Section

SUMMARY = "clips log-likelihoods and adds a policy drift; no ratio in the gradient"
PAPER = "arXiv 2505.12504"

MOST = 3.0


class Params(Section):
    group_size: int = Field(8, gt=0)
    drift: float = Field(0.001, ge=0)
    weighting: Literal["std", "clip_filter_like", "naive"] = "std"


@dataclass(frozen=True)
class WeighedForSignal(Stage):
    """Centred rewards times min(3, rows / groups with variance)."""

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        rows = sum(len(group.scores) for group in groups)
        signal = sum(not is_uniform(group.rewards) for group in groups)
        weight = min(MOST, rows / max(signal, 1))
        return [
            sample
            for index, group in enumerate(groups)
            for sample in pair(group, weight * centre(group.rewards), index)
        ]


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and updates."""
    credits: dict[str, Credit] = {
        "std": GroupCredit(GroupRelative()),
        "clip_filter_like": WeighedForSignal(),
        "naive": GroupCredit(GroupRelative(None)),
    }
    return Algorithm(
        name="cpgd",
        plan=FixedGroup(params.group_size),
        credit=credits[params.weighting],
        objective=CPGD(drift=params.drift),
        reducer=Reducer("token-mean"),
        updates=Updates(mini_batches=4),
    )
