"""REBEL: a regression of differences of log-ratios on differences of rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class REBEL(Objective):
    """Regress differences of log-ratios on reward differences, over all pairs. arXiv 2404.16767.

    Advantages are rewards, up to a constant of the group.
    """

    eta: Annotated[float, Field(gt=0)] = 1.0

    paper: ClassVar[str] = "arXiv 2404.16767"
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Mean squared residual over the pairs of a group, on all of its tokens [M]."""
        residuals = batch.sequence_sum(batch.log_ratio) - self.eta * batch.sequence_advantages

        def loss(members: Tensor) -> Tensor:
            if len(members) < 2:
                return residuals.sum() * 0.0
            own, count = residuals[members], len(members)
            # Every pair stands twice among the differences, and each member once beside itself.
            return (own[:, None] - own[None]).square().sum() / (count * (count - 1))

        return batch.spread_groups([loss(members) for members in batch.members()])


OBJECTIVES: Mapping[str, Objective] = {"rebel": REBEL()}
