"""PPO's clipped surrogate and its relatives: by token or by sequence, with caps and imitation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mmrl.objective import Bounds, Objective, Reducer, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

NonNegative = Annotated[float, Field(ge=0)]
Ratio = Literal["token", "sequence-mean", "sequence-sum", "sequence-token"]


@dataclass(frozen=True)
class Clipped(Objective):
    """PPO's clipped surrogate (arXiv 1707.06347, equation 7) and its relatives.

    `ratio`: of each token; of the sequence's mean log-ratio (GSPO, arXiv 2507.18071), also with a
    gradient for every token's own advantage (`sequence-token`); of its sum (RLOO).
    `dual` bounds the loss of negative advantages (arXiv 1912.09729, equation 5); `cap` bounds the
    unclipped ratio (two-sided clipping, INTELLECT-2, arXiv 2505.07291). `imitation` adds the mean
    negative log-likelihood of positive samples' tokens (VAPO, arXiv 2504.05118) and
    is defined for a token-mean reducer.
    """

    low: Annotated[float, Field(ge=0, le=1)] = 0.2
    high: NonNegative = 0.2
    dual: Annotated[float, Field(gt=1)] | None = None
    cap: Annotated[float, Field(gt=1)] | None = None
    ratio: Ratio = "token"
    imitation: NonNegative = 0.0

    paper: ClassVar[str] = "arXiv 1707.06347"

    def losses(self, batch: TokenBatch) -> Tensor:
        """The worse of the clipped and the unclipped surrogate [M], negated."""
        ratio, advantages = self._ratio(batch), batch.advantages
        bounded = ratio.clamp(1 - self.low, 1 + self.high)
        unbounded = ratio if self.cap is None else ratio.clamp(max=self.cap)
        surrogate = (unbounded * advantages).minimum(bounded * advantages)
        if self.dual is not None:
            floor = surrogate.maximum(self.dual * advantages)
            surrogate = floor.where(advantages < 0, surrogate)
        return self._imitation(batch) - surrogate

    def bounds(self, batch: TokenBatch) -> Bounds:
        """What the clip takes away: by the advantage's sign, of whichever ratio is compared.

        An imitation term's gradient stays.
        """
        ratio, advantages = self._ratio(batch).detach(), batch.advantages
        # The better of both surrogates is bounded by the nearer bound above, the worse by the
        # farther.
        near = 1 + self.high if self.cap is None else min(1 + self.high, self.cap)
        far = math.inf if self.cap is None else max(1 + self.high, self.cap)
        if self.dual is not None:
            far = min(far, self.dual)
        above = ((advantages > 0) & (ratio > near)) | ((advantages < 0) & (ratio > far))
        return Bounds(low=(advantages < 0) & (ratio < 1 - self.low), high=above)

    def reasons(self, reducer: Reducer) -> Iterator[str]:
        """Imitation is divided by tokens."""
        if self.imitation and reducer.name != "token-mean":
            yield "the imitation term is a mean over tokens: it needs reducer 'token-mean'"

    def _ratio(self, batch: TokenBatch) -> Tensor:
        log_ratio = batch.log_ratio
        match self.ratio:
            case "token":
                return log_ratio.exp()
            case "sequence-sum":
                return batch.sequence_sum(log_ratio).exp()[batch.sequence]
            case "sequence-mean":
                return batch.sequence_mean(log_ratio).exp()[batch.sequence]
            case "sequence-token":
                level = batch.sequence_mean(log_ratio).detach()[batch.sequence]
                return (level + batch.logprobs - batch.logprobs.detach()).exp()

    def _imitation(self, batch: TokenBatch) -> Tensor | float:
        """Mean negative log-likelihood of the step's positive tokens [M], if reduced by tokens."""
        if not self.imitation or not batch.positive_share:
            return 0.0
        return -batch.logprobs * batch.positive * (self.imitation / batch.positive_share)


OBJECTIVES: Mapping[str, Objective] = {
    "clipped": Clipped(),
    "gspo": Clipped(low=3e-4, high=4e-4, ratio="sequence-mean"),
    "gspo_token": Clipped(low=3e-4, high=4e-4, ratio="sequence-token"),
    "two_sided": Clipped(cap=4.0),
}
