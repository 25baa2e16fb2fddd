"""Group-robust DPO and IPO: kinds of prompts with the larger loss count more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from mmrl.objective import Objective, TokenBatch
from mmrl.objectives.margins import ReferencePairs

if TYPE_CHECKING:
    from torch import Tensor

KIND_WEIGHT = "the weight of each prompt's kind"


@dataclass(frozen=True)
class GroupRobust(ReferencePairs):
    """DPO's or IPO's loss times the weight of the prompt's kind. arXiv 2405.20304.

    Weights are the credit's; it moves them by the losses of the kinds.
    """

    loss: Literal["dpo", "ipo"] = "dpo"

    paper: ClassVar[str] = "arXiv 2405.20304"
    reads: ClassVar[str] = KIND_WEIGHT

    def losses(self, batch: TokenBatch) -> Tensor:
        """Weighed pair loss of a group, on all of its tokens [M]."""
        return batch.beside * super().losses(batch)

    def of_margins(self, margins: Tensor) -> Tensor:
        """DPO's or IPO's loss [pairs]; IPO's is of margins that are not multiplied by beta."""
        if self.loss == "ipo":
            return (margins / self.beta - 1 / (2 * self.beta)).square()
        return super().of_margins(margins)


OBJECTIVES: Mapping[str, Objective] = {
    "gr_dpo": GroupRobust(),
    "gr_ipo": GroupRobust(loss="ipo"),
}
