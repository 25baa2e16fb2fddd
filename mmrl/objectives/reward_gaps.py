"""Pair losses that read how much better the better answer is: reward-aware RPO, ODPO, weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mmrl.objective import Objective, TokenBatch
from mmrl.objectives.margins import ReferencePairs, log_sigmoid, over_pairs

if TYPE_CHECKING:
    from torch import Tensor

NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class RewardGaps(ReferencePairs):
    """Pairs whose loss knows both margins: of implied rewards, and of rewards, their advantages.

    Rewards of a pair differ by more than `least`.
    """

    least: NonNegative = 0.0

    def losses(self, batch: TokenBatch) -> Tensor:
        """Mean pair loss of a group, on all of its tokens [M]."""
        implied, earned = self.beta * self.scores(batch), batch.sequence_value(batch.advantages)

        def loss(better: Tensor, worse: Tensor) -> Tensor:
            return self.of_gaps(implied[better] - implied[worse], earned[better] - earned[worse])

        return over_pairs(batch, implied, loss, self.least)

    def of_gaps(self, margins: Tensor, gaps: Tensor) -> Tensor:
        """Return the loss of margins of implied rewards [pairs] and of positive reward gaps."""
        raise NotImplementedError


@dataclass(frozen=True)
class RewardAware(RewardGaps):
    """The implied margin is brought to `scale` times the reward gap. arXiv 2406.11704, 2502.00203.

    `distance`: the KL of the two as log-odds (Nemotron-4's, rewards' odds || implied odds), or half
    their squared difference.
    """

    scale: Annotated[float, Field(gt=0)] = 1.0
    distance: Literal["kl", "squared"] = "kl"

    paper: ClassVar[str] = "arXiv 2406.11704, arXiv 2502.00203"

    def of_gaps(self, margins: Tensor, gaps: Tensor) -> Tensor:
        """Return the distance of margins and scaled gaps [pairs]."""
        wanted = self.scale * gaps
        if self.distance == "squared":
            return (margins - wanted).square() / 2
        right, wrong = log_sigmoid(wanted), log_sigmoid(-wanted)
        return right.exp() * (right - log_sigmoid(margins)) + wrong.exp() * (
            wrong - log_sigmoid(-margins)
        )


@dataclass(frozen=True)
class Margins(RewardGaps):
    """DPO whose pairs must come apart by the reward gap, or count by it.

    `offset` times the gap (or its log) is taken off the implied margin: DPO with an offset, ODPO,
    arXiv 2402.10571. With `weigh` a pair counts as often as its gap is large.
    """

    offset: NonNegative = 1.0
    scale: Literal["linear", "log"] = "linear"
    weigh: bool = False

    paper: ClassVar[str] = "arXiv 2402.10571"

    def of_gaps(self, margins: Tensor, gaps: Tensor) -> Tensor:
        """Return DPO's loss of what is left of margins, weighed if so [pairs]."""
        loss = -log_sigmoid(margins - self.offset * (gaps.log() if self.scale == "log" else gaps))
        return loss * gaps if self.weigh else loss


OBJECTIVES: Mapping[str, Objective] = {
    "rpo_reward_aware": RewardAware(),
    "odpo": Margins(),
    "margin_weighted": Margins(offset=0.0, weigh=True),
}
