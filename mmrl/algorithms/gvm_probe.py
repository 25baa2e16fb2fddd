"""The estimate phase of GVM-RAFT: acceptance rate and gradient norm of every prompt.

arXiv 2505.02391. Nothing is trained; the phase ends when every sample was asked once. The norm is
that of the LM head's gradient, as in the released code, as a mean over accepted responses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, outcomes, scorable
from mmrl.algorithms.stages.estimates import EachOnce, Note
from mmrl.objectives.likelihood import Likelihood
from mmrl.stage import Need, Stage, needed
from mmrl.types import Group
from mmrl.validation import Section

SUMMARY = "the estimate phase of gvm_raft: probes every prompt, trains nothing"
PAPER = "arXiv 2505.02391"


class Params(Section):
    group_size: int = Field(8, gt=0, description="probe responses to a prompt")
    part: str | None = Field(None, description="reward part that says right or wrong")


@dataclass(frozen=True)
class Probe(Stage):
    """Share of accepted responses, and their mean gradient norm; None without a scorable one."""

    part: str | None = None

    needs: ClassVar[frozenset[Need]] = frozenset({"gradient_norms"})

    def __call__(self, group: Group) -> dict[str, float] | None:
        values = outcomes(group, self.part)
        known = scorable(values)
        if not known.any():
            return None
        accepted = known & (values > 0)
        norms = np.asarray(needed(group.extra.gradient_norms, "gradient_norms"), dtype=float)
        return {
            "rate": float(accepted.sum() / known.sum()),
            "norm": float(norms[accepted].mean()) if accepted.any() else 0.0,
        }


def build(params: Params) -> Algorithm:
    """Fill the prompt sampler and credit."""
    return Algorithm(
        name="gvm_probe",
        sampler=EachOnce("probes"),
        plan=FixedGroup(params.group_size),
        credit=Note("probes", Probe(params.part)),
        objective=Likelihood(),
    )
