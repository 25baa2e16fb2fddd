"""Supervised fine-tuning as a degenerate policy gradient: every target token has advantage 1.

`rollout.engine: targets` supplies the reference completions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit
from mmrl.objective import Reducer
from mmrl.objectives.likelihood import Likelihood
from mmrl.stage import Context
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "supervised fine-tuning on the tasks' own targets"
PAPER = "maximum likelihood"


class Params(Section):
    pass


def unused(params: Params) -> Mapping[str, str]:
    """Name the common options without use."""
    return {
        "group_size": "one target a prompt",
        **dict.fromkeys(("kl_coefficient", "kl_estimator", "kl_placement"), "nothing is sampled"),
    }


def build(params: Params) -> Algorithm:
    """Fill the stages: one target a prompt, likelihood as the objective."""
    return Algorithm(
        name="sft",
        plan=FixedGroup(1),
        credit=GroupCredit(ones),
        objective=Likelihood(),
        reducer=Reducer("token-mean"),
        supervised=True,
    )


def ones(group: Group, context: Context) -> Floats:
    """Learn every response of the group alike: advantages [G] of 1."""
    return np.ones(len(group.responses))
