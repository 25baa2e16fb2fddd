"""Pair losses in which single tokens, or turns, count more than others: BMC and DMPO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Bounds, Objective, TokenBatch
from mmrl.objectives.margins import ReferencePairs

if TYPE_CHECKING:
    from torch import Tensor

DIFFERENCES = "which tokens the other answer does not have"
TURN_WEIGHTS = "the weight of each token's turn"


@dataclass(frozen=True)
class BMC(ReferencePairs):
    """DPO in which a token that the other answer lacks counts 1 + min(1 / p, delta) times.

    arXiv 2408.07471, the modelling phase: p is the policy's own probability of the token, a
    constant; the surer it is, the less the token is pressed. The policy's and the reference's
    log-probs have the same weight (the released code weighs the reference's by its own).
    """

    delta: Annotated[float, Field(ge=0)] = 3.0

    paper: ClassVar[str] = "arXiv 2408.07471"
    reads: ClassVar[str] = DIFFERENCES

    def scores(self, batch: TokenBatch) -> Tensor:
        """Return the weighed log-ratio [sequences]."""
        unsure = (-batch.logprobs.detach()).exp().clamp(max=self.delta)
        return batch.sequence_sum((1 + batch.beside * unsure) * (batch.logprobs - batch.reference))

    def bounds(self, batch: TokenBatch) -> Bounds:
        """Weights that were bounded [M]."""
        above = (-batch.logprobs.detach()).exp() > self.delta
        return Bounds(weight=(batch.advantages != 0) & (batch.beside > 0) & above)


@dataclass(frozen=True)
class DMPO(ReferencePairs):
    """DPO of episodes in which early turns count more. arXiv 2406.14868.

    Turn t of T, from 0, has weight (1 - gamma^(T - t)) / (1 - gamma^T), which its credit gives.
    """

    paper: ClassVar[str] = "arXiv 2406.14868"
    reads: ClassVar[str] = TURN_WEIGHTS

    def scores(self, batch: TokenBatch) -> Tensor:
        """Return the weighed log-ratio [sequences]."""
        return batch.sequence_sum(batch.beside * (batch.logprobs - batch.reference))


OBJECTIVES: Mapping[str, Objective] = {"bmc": BMC(), "dmpo": DMPO()}
