"""H-DPO: DPO in which the entropy of the policy has a weight of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Objective, TokenBatch
from mmrl.objectives.margins import ReferencePairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class HDPO(ReferencePairs):
    """DPO whose regulariser counts the policy's entropy `alpha` times. arXiv 2411.07595.

    The implied reward is beta (alpha log policy - log reference): below 1 the policy becomes
    sharper than DPO's, above 1 flatter.
    """

    alpha: Annotated[float, Field(gt=0)] = 0.95

    paper: ClassVar[str] = "arXiv 2411.07595"

    def scores(self, batch: TokenBatch) -> Tensor:
        """Return alpha log policy - log reference [sequences]."""
        return batch.sequence_sum(self.alpha * batch.logprobs - batch.reference)


OBJECTIVES: Mapping[str, Objective] = {"h_dpo": HDPO()}
