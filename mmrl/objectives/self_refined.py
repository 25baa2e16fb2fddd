"""Sr-DPO and Sr-IPO: what the policy itself makes of two answers is taken off their margin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mmrl.objective import Objective, TokenBatch
from mmrl.objectives.margins import ReferencePairs

if TYPE_CHECKING:
    from torch import Tensor

AIDED = "log-probs of the answers where the policy is told to answer well"


@dataclass(frozen=True)
class SelfRefined(ReferencePairs):
    """DPO's or IPO's margin less `strength` times the policy's own preference. arXiv 2405.21040.

    That preference is the margin of log-probs under the prompt with an aid that asks for good
    answers, a constant: the more the policy itself sees between two answers, the farther apart
    they must come.
    """

    loss: Literal["dpo", "ipo"] = "dpo"
    strength: Annotated[float, Field(ge=0)] = 0.1

    paper: ClassVar[str] = "arXiv 2405.21040"
    reads: ClassVar[str] = AIDED

    def scores(self, batch: TokenBatch) -> Tensor:
        """Return what `beta` multiplies [sequences]."""
        aided = batch.sequence_value(batch.beside)
        return super().scores(batch) - self.strength * aided

    def of_margins(self, margins: Tensor) -> Tensor:
        """DPO's or IPO's loss [pairs]; IPO's is of margins that are not multiplied by beta."""
        if self.loss == "ipo":
            return (margins / self.beta - 1 / (2 * self.beta)).square()
        return super().of_margins(margins)


OBJECTIVES: Mapping[str, Objective] = {
    "sr_dpo": SelfRefined(),
    "sr_ipo": SelfRefined(loss="ipo"),
}
