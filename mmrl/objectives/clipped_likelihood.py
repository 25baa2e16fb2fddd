"""CPGD: log-likelihoods are clipped instead of ratios, and a drift holds to the old policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Bounds, Objective, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CPGD(Objective):
    """Clipped log-likelihood plus policy drift. arXiv 2505.12504.

    The drift has the gradient of k3 of KL(old || policy), with its weight bounded by 2.
    """

    low: Annotated[float, Field(ge=0, lt=1)] = 0.2
    high: Annotated[float, Field(ge=0)] = 0.2
    drift: Annotated[float, Field(ge=0)] = 0.001

    paper: ClassVar[str] = "arXiv 2505.12504"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Clipped log-likelihood and policy drift [M]."""
        above = batch.logprobs.minimum(batch.old + math.log1p(self.high))
        below = batch.logprobs.maximum(batch.old + math.log1p(-self.low))
        clipped = above.where(batch.advantages > 0, below)
        drift = batch.log_ratio.detach().expm1().clamp(max=2.0) * batch.logprobs
        return self.drift * drift - batch.advantages * clipped

    def bounds(self, batch: TokenBatch) -> Bounds:
        """Tokens whose advantage no longer acts; the drift, which pulls them back, does."""
        log_ratio, advantages = batch.log_ratio.detach(), batch.advantages
        return Bounds(
            low=(advantages < 0) & (log_ratio < math.log1p(-self.low)),
            high=(advantages > 0) & (log_ratio > math.log1p(self.high)),
        )


OBJECTIVES: Mapping[str, Objective] = {"cpgd": CPGD()}
