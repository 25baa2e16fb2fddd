"""P3O: the policy gradient of two answers to a prompt, by which earned more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Aggregation, Bounds, Objective, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class P3O(Objective):
    """Pairwise proximal policy optimisation, each answer clipped by itself. arXiv 2310.00212.

    Of two answers each has half the difference of their rewards as its advantage, on the ratio of
    the whole answer, clipped as PPO's; over every two answers of a group. Advantages are rewards,
    up to a constant of the group.
    """

    low: Share = 0.2
    high: Annotated[float, Field(ge=0)] = 0.2

    paper: ClassVar[str] = "arXiv 2310.00212"
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "seq-mean-token-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Each sequence's part of the mean surrogate over pairs, negated, on all its tokens [M]."""
        ratio = batch.sequence_sum(batch.log_ratio).exp()
        parts = ratio * 0.0
        for members, gains in self._gains(batch):
            own = ratio[members][:, None]
            bounded = own.clamp(1 - self.low, 1 + self.high)
            surrogate = (own * gains).minimum(bounded * gains)
            # A pair is in the rows of both: means over rows and over the others make that of pairs.
            parts = parts.index_add(0, members, -2 * surrogate.sum(1) / max(len(members) - 1, 1))
        return parts[batch.sequence]

    def bounds(self, batch: TokenBatch) -> Bounds:
        """Sequences beyond a bound that lost every one of their comparisons [M]."""
        ratio = batch.sequence_sum(batch.log_ratio).detach().exp()
        low, high = ratio < 0, ratio < 0  # none
        for members, gains in self._gains(batch):
            compared = (gains != 0).any(1)
            low[members] = compared & (gains <= 0).all(1) & (ratio[members] < 1 - self.low)
            high[members] = compared & (gains >= 0).all(1) & (ratio[members] > 1 + self.high)
        taught = batch.advantages != 0
        return Bounds(low=taught & low[batch.sequence], high=taught & high[batch.sequence])

    @staticmethod
    def _gains(batch: TokenBatch) -> Iterator[tuple[Tensor, Tensor]]:
        """The sequences of each group, and half of what each earned above each other [G, G]."""
        rewards = batch.sequence_value(batch.advantages)
        for members in batch.members():
            own = rewards[members]
            yield members, (own[:, None] - own[None]) / 2


OBJECTIVES: Mapping[str, Objective] = {"p3o": P3O()}
