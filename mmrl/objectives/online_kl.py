"""HyPO: preferences of stored answers, and the KL of what the policy answers itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Objective, TokenBatch
from mmrl.objectives.margins import ReferencePairs, over_groups

if TYPE_CHECKING:
    from torch import Tensor

SAMPLED = "which answers the policy sampled"


@dataclass(frozen=True)
class HyPO(ReferencePairs):
    """DPO's loss of stored pairs plus `online` times KL(policy || reference). arXiv 2406.01462.

    The KL is that of whole answers, over those that the policy sampled, which are in no pair: its
    value is their mean log-ratio, its gradient the score function's, less the mean of the group's
    other ones.
    """

    online: Annotated[float, Field(ge=0)] = 1e-4

    paper: ClassVar[str] = "arXiv 2406.01462"
    reads: ClassVar[str] = SAMPLED
    on_policy: ClassVar[bool] = True

    def losses(self, batch: TokenBatch) -> Tensor:
        """Pair loss and KL of a group, on all of its tokens [M]."""
        ratio, written = self.scores(batch), batch.sequence_sum(batch.logprobs)
        sampled = batch.sequence_value(batch.beside) > 0

        def of_group(members: Tensor) -> Tensor:
            own = members[sampled[members]]
            if not len(own):
                return ratio.sum() * 0.0
            values, count = ratio[own].detach(), len(own)
            centred = (values - values.mean()) * (count / (count - 1)) if count > 1 else values
            chance = written[own]
            return values.mean() + (centred * (chance - chance.detach())).mean()

        def of_pairs(chosen: Tensor, rejected: Tensor) -> Tensor:
            margins = self.beta * (ratio[chosen][:, None] - ratio[rejected][None])
            return self.of_margins(margins).mean()

        # What was sampled has no label, and is in no pair.
        kl = batch.spread_groups([of_group(members) for members in batch.members()])
        return over_groups(batch, ratio, of_pairs) + self.online * kl


OBJECTIVES: Mapping[str, Objective] = {"hypo": HyPO()}
