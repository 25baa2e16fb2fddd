"""WPO: pairs count by how probably the policy itself would have written them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mmrl.objective import Objective, TokenBatch
from mmrl.objectives.margins import ReferencePairs, over_pairs

if TYPE_CHECKING:
    from torch import Tensor

COLLISION = "the log of the policy's collision probability"


@dataclass(frozen=True)
class WPO(ReferencePairs):
    """DPO's loss times the weights of both answers. arXiv 2406.11827, equation 2 (aligned weights).

    The log of an answer's weight is its mean log-prob less the log of the mean probability of what
    the policy would sample there, log sum p^2; so an answer of the policy has about 1. Weights are
    constants of the policy that trains; log sum p^2 is that of the step's start.
    """

    paper: ClassVar[str] = "arXiv 2406.11827"
    reads: ClassVar[str] = COLLISION

    def losses(self, batch: TokenBatch) -> Tensor:
        """Weighted mean pair loss of a group, on all of its tokens [M]."""
        implied = self.beta * self.scores(batch)
        weight = batch.sequence_mean(batch.logprobs.detach() - batch.beside).exp()

        def loss(better: Tensor, worse: Tensor) -> Tensor:
            return (
                weight[better] * weight[worse] * self.of_margins(implied[better] - implied[worse])
            )

        return over_pairs(batch, implied, loss)


OBJECTIVES: Mapping[str, Objective] = {"wpo": WPO()}
