"""RPO, the regularised one: DPO and the likelihood of chosen answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Objective, TokenBatch
from mmrl.objectives.margins import ReferencePairs, over_pairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RegularisedPreference(ReferencePairs):
    """DPO's loss plus `likelihood` times the negative log-likelihood of the better answer.

    Regularised preference optimisation, arXiv 2405.16436: the likelihood keeps the policy where the
    better answers are. With `average` it is that of a token, as in iterative reasoning preference
    optimisation, arXiv 2404.19733.
    """

    likelihood: Annotated[float, Field(ge=0)] = 0.005
    average: bool = False

    paper: ClassVar[str] = "arXiv 2405.16436"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Mean of both over the pairs of a group, on all of its tokens [M]."""
        implied = self.beta * self.scores(batch)
        total = batch.sequence_mean if self.average else batch.sequence_sum
        written = total(batch.logprobs)

        def loss(better: Tensor, worse: Tensor) -> Tensor:
            preferred = self.of_margins(implied[better] - implied[worse])
            return preferred - self.likelihood * written[better]

        return over_pairs(batch, implied, loss)


OBJECTIVES: Mapping[str, Objective] = {"rpo_regularised": RegularisedPreference()}
