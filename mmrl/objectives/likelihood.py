"""Negative log-likelihood weighted by the advantage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mmrl.objective import Objective, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Likelihood(Objective):
    """REINFORCE (Williams, 1992), or supervised fine-tuning where every advantage is 1."""

    paper: ClassVar[str] = "Williams, 1992, doi 10.1007/BF00992696"
    on_policy: ClassVar[bool] = True

    def losses(self, batch: TokenBatch) -> Tensor:
        """Advantage-weighted negative log-likelihood [M]."""
        return -batch.logprobs * batch.advantages


OBJECTIVES: Mapping[str, Objective] = {"likelihood": Likelihood()}
