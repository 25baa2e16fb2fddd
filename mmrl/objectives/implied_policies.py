"""NFT: the likelihood of right answers, and of wrong ones through the policy they imply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mmrl.objective import Bounds, Objective, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class NFT(Objective):
    """Supervised learning of right answers and, implicitly, against wrong ones. arXiv 2505.18116.

    Advantages are centred 0/1 rewards: 1 - r of a right answer, -r of a wrong one, with r the
    group's accuracy. `weight` of a prompt: (1 - r), or sqrt((1 - r) / r), or 1.
    """

    epsilon: Positive = 1.0
    negative: Annotated[float, Field(ge=0)] = 1.0
    weight: Literal["linear", "root", "none"] = "linear"
    max_log_ratio: Positive = 10.0

    paper: ClassVar[str] = "arXiv 2505.18116"
    centred: ClassVar[bool] = True

    def losses(self, batch: TokenBatch) -> Tensor:
        """Negative log of the right, and of the implied wrong policy's, ratio [M]."""
        right, ratio, implied, accuracy = self._implied(batch)
        # The value is clamped, the slope is kept.
        bounded = implied + (implied.clamp(min=self.epsilon) - implied).detach()
        loss = (-ratio.log()).where(right, -self.negative * bounded.log())
        match self.weight:
            case "linear":
                loss = loss * (1 - accuracy)
            case "root":
                loss = loss * ((1 - accuracy) / accuracy).sqrt()
            case "none":
                pass
        return loss.where(batch.advantages != 0, 0.0)

    def bounds(self, batch: TokenBatch) -> Bounds:
        """Ratios beyond the largest, which lose their gradient, and implied ones at their floor."""
        right, _, implied, _ = self._implied(batch)
        taught = batch.advantages != 0
        above = taught & (batch.log_ratio.detach() > self.max_log_ratio)
        floored = taught & ~right & (implied.detach() < self.epsilon)
        return Bounds(high=above, weight=floored & ~above)

    def _implied(self, batch: TokenBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Right tokens, their ratio, that of the implied wrong policy, the group's accuracy [M]."""
        right = batch.advantages > 0
        accuracy = (1 - batch.advantages).where(right, -batch.advantages).clamp(0.02, 0.98)
        ratio = batch.log_ratio.clamp(max=self.max_log_ratio).exp()
        return right, ratio, (1 - accuracy * ratio) / (1 - accuracy), accuracy


OBJECTIVES: Mapping[str, Objective] = {"nft": NFT()}
