"""CoPG and trajectory balance: a group's log-probs are regressed on what its answers are worth."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch
from mmrl.stage import Need

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Regressed(Objective):
    """Squares of a group's centred residuals; what is alike for the group drops out."""

    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Weighed sum of squares of a group, on all of its tokens [M]; alone it has nothing."""
        residuals = self.residuals(batch)

        def loss(members: Tensor) -> Tensor:
            if len(members) < 2:
                return residuals.sum() * 0.0
            centred = residuals[members] - residuals[members].mean()
            return centred.square().sum() / self.divisor(len(members))

        return batch.spread_groups([loss(members) for members in batch.members()])

    @abstractmethod
    def residuals(self, batch: TokenBatch) -> Tensor:
        """What each response is off by [N], up to a constant of its group."""

    @abstractmethod
    def divisor(self, count: int) -> float:
        """What the sum of squares over `count` responses is divided by."""


@dataclass(frozen=True)
class CoPG(Regressed):
    """Regress differences of log-ratios to the reference on reward differences. arXiv 2406.19185.

    The mean over a group's pairs of (beta x difference - reward difference)^2 / (2 beta), whose
    gradient is that of the paper's contrastive term. Advantages are rewards, up to a constant.
    """

    beta: Annotated[float, Field(gt=0)] = 0.1

    paper: ClassVar[str] = "arXiv 2406.19185"
    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})

    def residuals(self, batch: TokenBatch) -> Tensor:
        """Implied rewards less rewards [N]."""
        implied = self.beta * batch.sequence_sum(batch.logprobs - batch.reference)
        return implied - batch.sequence_advantages

    def divisor(self, count: int) -> float:
        """The sum over pairs is `count` times that of the centred squares."""
        return self.beta * (count - 1)


@dataclass(frozen=True)
class TrajectoryBalance(Regressed):
    """The log-variance form of trajectory balance (Var-TB of GFlowVLM, arXiv 2503.06514).

    The variance within a group of log-prob less log-reward: log Z is the group's mean of it, so no
    flow is learnt. Advantages are log-rewards, up to a constant of the group.
    """

    paper: ClassVar[str] = "arXiv 2503.06514"

    def residuals(self, batch: TokenBatch) -> Tensor:
        """Log-probs of whole responses less their log-rewards [N]."""
        return batch.sequence_sum(batch.logprobs) - batch.sequence_advantages

    def divisor(self, count: int) -> float:
        """The variance of all of them."""
        return float(count)


OBJECTIVES: Mapping[str, Objective] = {"copg": CoPG(), "trajectory_balance": TrajectoryBalance()}
