"""DisCO: scores of right answers against those of wrong ones, under a KL constraint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class DisCO(Objective):
    """Separate right from wrong answers by their scores. arXiv 2505.12366.

    Right is where the advantage is positive, wrong where it is negative. `score` is the mean
    log-prob or the mean ratio; `tau` None is DisCO-b, without the soft maximum over wrong ones.
    The KL constraint is computed per group, so that packing does not move it (a variant: the
    released code takes the whole mini-batch). A group of one class has score 0.
    """

    score: Literal["log-likelihood", "likelihood-ratio"] = "log-likelihood"
    tau: Annotated[float, Field(gt=0)] | None = 10.0
    beta: NonNegative = 1000.0
    delta: NonNegative = 1e-4

    paper: ClassVar[str] = "arXiv 2505.12366"
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Negative discriminative score of a group and its KL constraint [M]."""
        by_token = batch.logprobs if self.score == "log-likelihood" else batch.log_ratio.exp()
        scores, labels = batch.sequence_mean(by_token), batch.sequence_advantages
        kl = batch.sequence_sum(-batch.log_ratio)

        def loss(members: Tensor) -> Tensor:
            right, wrong = members[labels[members] > 0], members[labels[members] < 0]
            drift = kl[members].sum() / batch.lengths[members].sum().clamp(min=1)
            hinge = (self.beta * (drift.detach() - self.delta)).clamp(min=0) * drift
            if not len(right) or not len(wrong):
                return hinge
            return hinge + _soft_max(scores[wrong], self.tau) - scores[right].mean()

        return batch.spread_groups([loss(members) for members in batch.members()])


def _soft_max(scores: Tensor, tau: float | None) -> Tensor:
    """tau log mean exp(score / tau), which is the mean where tau is None (infinite)."""
    if tau is None:
        return scores.mean()
    return tau * ((scores / tau).logsumexp(0) - math.log(len(scores)))


OBJECTIVES: Mapping[str, Objective] = {"disco": DisCO()}
