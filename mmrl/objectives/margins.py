"""What pair losses are made of: chosen against rejected answers of a group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch
from mmrl.stage import Need

if TYPE_CHECKING:
    from torch import Tensor


def over_groups(
    batch: TokenBatch, values: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Spread one loss a group on all of the group's tokens [M]; 0 without a pair.

    `loss` gets the indices of the group's chosen and of its rejected sequences, whose advantages
    are positive and negative, at least one of each. `values` [sequences] is what it is computed of.
    """
    labels = batch.sequence_value(batch.advantages)

    def of_group(members: Tensor) -> Tensor:
        chosen, rejected = members[labels[members] > 0], members[labels[members] < 0]
        if not len(chosen) or not len(rejected):
            return values.sum() * 0.0
        return loss(chosen, rejected)

    return batch.spread_groups([of_group(members) for members in batch.members()])


def over_pairs(
    batch: TokenBatch,
    values: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    least: float = 0.0,
) -> Tensor:
    """Spread a group's mean pair loss on all of its tokens [M]; 0 without a pair.

    A pair is every two of a group's sequences of which one has an advantage that is more than
    `least` larger: `loss` gets the indices of the better and of the worse ones [pairs]. `values`
    [sequences] is what it is computed of.
    """
    labels = batch.sequence_value(batch.advantages)

    def of_group(members: Tensor) -> Tensor:
        label = labels[members]
        better, worse = (label[:, None] - label[None] > least).nonzero(as_tuple=True)
        if not len(better):
            return values.sum() * 0.0
        return loss(members[better], members[worse]).mean()

    return batch.spread_groups([of_group(members) for members in batch.members()])


def over_margins(batch: TokenBatch, values: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Spread a group's mean pair loss on all of its tokens [M]; 0 without a pair.

    Pairs are those of `over_pairs`: `loss` gets how far the better one's value is above the
    other's [pairs].
    """
    return over_pairs(batch, values, lambda better, worse: loss(values[better] - values[worse]))


def log_sigmoid(values: Tensor) -> Tensor:
    """log(1 / (1 + exp(-values))) of any shape, finite for every finite value."""
    return -values.new_zeros(()).logaddexp(-values)


@dataclass(frozen=True)
class ReferencePairs(Objective):
    """A loss of pairs by what the policy implies against a reference; DPO's, unless it is changed.

    The implied reward of an answer is `beta` x its `score`, the log-ratio to the reference.
    """

    beta: Annotated[float, Field(gt=0)] = 0.1

    paper: ClassVar[str] = "arXiv 2305.18290"
    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Mean pair loss of a group, on all of its tokens [M]."""
        return over_margins(batch, self.beta * self.scores(batch), self.of_margins)

    def scores(self, batch: TokenBatch) -> Tensor:
        """Return what `beta` multiplies [sequences]: the log-ratio of policy and reference."""
        return batch.sequence_sum(batch.logprobs - batch.reference)

    def of_margins(self, margins: Tensor) -> Tensor:
        """Return the loss of every pair, of margins of implied rewards [pairs]."""
        return -log_sigmoid(margins)
