"""SimPO: DPO on mean log-probs with a margin and without a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch
from mmrl.objectives.margins import log_sigmoid, over_margins

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SimPO(Objective):
    """DPO on mean log-probs with a margin and without a reference. arXiv 2405.14734."""

    beta: Annotated[float, Field(gt=0)] = 2.0
    margin: float = 0.5

    paper: ClassVar[str] = "arXiv 2405.14734"
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Mean pair loss of a group, on all of its tokens [M]."""
        means = batch.sequence_mean(batch.logprobs)
        return over_margins(batch, means, lambda m: -log_sigmoid(self.beta * m - self.margin))


OBJECTIVES: Mapping[str, Objective] = {"simpo": SimPO()}
