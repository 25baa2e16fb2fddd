"""KTO: answers are good or bad, each by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch
from mmrl.stage import Need

if TYPE_CHECKING:
    from torch import Tensor

Positive = Annotated[float, Field(gt=0)]
REFERENCE_POINT = "the reference point, an estimate of KL(policy || reference)"


@dataclass(frozen=True)
class KTO(Objective):
    """Kahneman-Tversky optimisation: what good and bad answers lack. arXiv 2402.01306, equation 7.

    Good is where the advantage is positive, bad where it is negative. The value of an answer is the
    sigmoid of `beta` x (its log-ratio - the reference point), of a bad one with the other sign; the
    loss is what is missing to 1, times `good` or `bad`.
    """

    beta: Positive = 0.1
    good: Positive = 1.0
    bad: Positive = 1.0

    paper: ClassVar[str] = "arXiv 2402.01306"
    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    reads: ClassVar[str] = REFERENCE_POINT
    reducer: ClassVar[Aggregation | None] = "seq-mean-token-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """What is missing to the full value of each sequence, on all of its tokens [M]."""
        gain = batch.sequence_sum(batch.logprobs - batch.reference)
        gain = self.beta * (gain - batch.sequence_value(batch.beside))
        label = batch.sequence_value(batch.advantages)
        loss = (self.good * (-gain).sigmoid()).where(label > 0, self.bad * gain.sigmoid())
        return loss.where(label != 0, 0.0)[batch.sequence]


OBJECTIVES: Mapping[str, Objective] = {"kto": KTO()}
