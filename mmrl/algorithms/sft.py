"""Supervised fine-tuning as a degenerate policy gradient: every target token has advantage 1.

Meant for `rollout.engine: targets`, which supplies the reference completions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from mmrl.algorithm import Aggregation, Algorithm, Context, Objective, Reducer
from mmrl.algorithms.credit import fixed_group, to_train_samples
from mmrl.config import Section
from mmrl.types import Group, TrainSample

SUMMARY = "supervised fine-tuning on the tasks' own targets"
PAPER = "maximum likelihood"


class Params(Section):
    name: Literal["sft"] = "sft"
    aggregation: Aggregation = "token-mean"


def build(params: Params) -> Algorithm:
    """Fill the stages: one target a prompt, likelihood as the objective."""

    def credit(groups: list[Group], context: Context) -> list[TrainSample]:
        return [
            sample
            for index, group in enumerate(groups)
            for sample in to_train_samples(
                group, np.ones(len(group.responses)), index, on_policy=True
            )
        ]

    return Algorithm(
        name="sft",
        plan=fixed_group(1),
        credit=credit,
        objective=Objective("likelihood"),
        reducer=Reducer(params.aggregation),
    )
