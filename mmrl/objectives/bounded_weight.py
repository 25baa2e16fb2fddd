"""CISPO: the ratio is a bounded weight instead of something that is clipped away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Bounds, Objective, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CISPO(Objective):
    """REINFORCE weighted by the clipped, detached ratio; no token is dropped. arXiv 2506.13585.

    `low` and `high` are bounds of the ratio itself.
    """

    high: Annotated[float, Field(gt=0)] = 5.0
    low: Annotated[float, Field(ge=0)] = 0.0

    paper: ClassVar[str] = "arXiv 2506.13585"
    clips_ratio: ClassVar[bool] = True

    def losses(self, batch: TokenBatch) -> Tensor:
        """REINFORCE with the clipped ratio as a constant weight [M]."""
        weight = batch.log_ratio.detach().exp().clamp(self.low, self.high)
        return -weight * batch.advantages * batch.logprobs

    def bounds(self, batch: TokenBatch) -> Bounds:
        """Weights that were bounded; no token loses its gradient."""
        ratio = batch.log_ratio.detach().exp()
        outside = (ratio < self.low) | (ratio > self.high)
        return Bounds(weight=(batch.advantages != 0) & outside)


OBJECTIVES: Mapping[str, Objective] = {"cispo": CISPO()}
