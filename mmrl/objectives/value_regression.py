"""A*-PO: a regression of each answer's log-ratio on its reward minus the optimal value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch
from mmrl.stage import Need

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AStarPO(Objective):
    """Regress beta x log(policy / reference) on the reward minus V*. arXiv 2505.20686.

    Advantages are the reward minus V*.
    """

    beta: Annotated[float, Field(gt=0)] = 1e-3

    paper: ClassVar[str] = "arXiv 2505.20686"
    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    reducer: ClassVar[Aggregation | None] = "seq-mean-token-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Squared residual of each sequence, on all of its tokens [M]."""
        implied = self.beta * batch.sequence_sum(batch.logprobs - batch.reference)
        return (implied - batch.sequence_advantages).square()[batch.sequence]


OBJECTIVES: Mapping[str, Objective] = {"a_star_po": AStarPO()}
