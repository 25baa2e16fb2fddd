"""GVPO: a regression of a group's centred log-ratios on its centred rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GVPO(Objective):
    """Regress centred log-ratios of a group on its centred rewards. arXiv 2504.19599.

    Advantages are the centred rewards. A group of one has nothing to compare with and gets 0.
    """

    beta: Annotated[float, Field(gt=0)] = 0.1

    paper: ClassVar[str] = "arXiv 2504.19599"
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Squared residuals of a group over 2 (G - 1), on all of its tokens [M]."""
        implied = self.beta * batch.sequence_sum(batch.log_ratio)
        rewards = batch.sequence_advantages

        def loss(members: Tensor) -> Tensor:
            if len(members) < 2:
                return implied.sum() * 0.0
            centred = [v[members] - v[members].mean() for v in (implied, rewards)]
            return (centred[0] - centred[1]).square().sum() / (2 * (len(members) - 1))

        return batch.spread_groups([loss(members) for members in batch.members()])


OBJECTIVES: Mapping[str, Objective] = {"gvpo": GVPO()}
