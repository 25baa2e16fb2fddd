"""MPO: preference, quality and generation losses in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch
from mmrl.objectives.margins import log_sigmoid, over_groups
from mmrl.stage import Need

if TYPE_CHECKING:
    from torch import Tensor

NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class MPO(Objective):
    """Mixed preference optimisation: which is better, how good each is, and how to write it.

    arXiv 2411.10442: a DPO loss, a binary loss on each answer's implied reward against their mean
    (BCO, arXiv 2404.04656; the running mean is replaced by the group's, a variant), and the mean
    negative log-likelihood of chosen answers. Default weights are those TRL lists.
    """

    beta: Annotated[float, Field(gt=0)] = 0.1
    preference: NonNegative = 0.8
    quality: NonNegative = 0.2
    generation: NonNegative = 1.0

    paper: ClassVar[str] = "arXiv 2411.10442"
    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Weighted preference, quality and generation losses of a group, on all its tokens [M]."""
        implied = self.beta * batch.sequence_sum(batch.logprobs - batch.reference)
        likelihoods = batch.sequence_mean(batch.logprobs)

        def loss(chosen: Tensor, rejected: Tensor) -> Tensor:
            good, bad = implied[chosen], implied[rejected]
            middle = (good.sum() + bad.sum()).detach() / (len(good) + len(bad))
            preferred = -log_sigmoid(good[:, None] - bad[None]).mean()
            quality = -log_sigmoid(good - middle).mean() - log_sigmoid(middle - bad).mean()
            return (
                self.preference * preferred
                + self.quality * quality
                - self.generation * likelihoods[chosen].mean()
            )

        return over_groups(batch, implied, loss)


OBJECTIVES: Mapping[str, Objective] = {"mpo": MPO()}
