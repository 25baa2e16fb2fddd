"""GRPO: group-relative advantages, clipped ratio, KL towards the reference in the loss.

DeepSeekMath, arXiv 2402.03300, equations 3 and 4.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mmrl.algorithm import (
    KL,
    Aggregation,
    Algorithm,
    Context,
    KLEstimator,
    Objective,
    Reducer,
    Updates,
)
from mmrl.algorithms.credit import PRESETS, Numerics, fixed_group, group_relative, to_train_samples
from mmrl.config import Section
from mmrl.types import Group, TrainSample

SUMMARY = "group-relative advantages with a clipped ratio and a KL penalty"
PAPER = "arXiv 2402.03300"


class Params(Section):
    name: Literal["grpo"] = "grpo"
    group_size: int = Field(8, gt=0)
    clip_low: float = Field(0.2, ge=0)
    clip_high: float = Field(0.2, ge=0)
    dual_clip: float | None = Field(None, gt=1)
    kl_coefficient: float = Field(0.0, ge=0)
    kl_estimator: KLEstimator = "k3"
    aggregation: Aggregation = "seq-mean-token-mean"
    passes: int = Field(1, gt=0)
    mini_batches: int = Field(1, gt=0)
    keep_truncated: bool = True
    numerics: Numerics = "paper"


def build(params: Params) -> Algorithm:
    """Fill the stages: one group a prompt, normalised advantages, clipped objective."""
    updates = Updates(params.passes, params.mini_batches)

    def credit(groups: list[Group], context: Context) -> list[TrainSample]:
        return [
            sample
            for index, group in enumerate(groups)
            for sample in to_train_samples(
                group,
                group_relative(group.rewards, PRESETS[params.numerics]),
                index,
                on_policy=updates.on_policy,
                keep_truncated=params.keep_truncated,
            )
        ]

    clip = {"low": params.clip_low, "high": params.clip_high, "dual": params.dual_clip}
    return Algorithm(
        name="grpo",
        plan=fixed_group(params.group_size),
        credit=credit,
        objective=Objective("clipped", clip),
        reducer=Reducer(params.aggregation),
        kl=KL(params.kl_coefficient, params.kl_estimator) if params.kl_coefficient else None,
        updates=updates,
    )
