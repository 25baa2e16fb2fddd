"""What pair losses are made of: chosen against rejected answers of a group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmrl.objective import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


def over_groups(
    batch: TokenBatch, values: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Spread one loss a group on all of the group's tokens [M]; 0 without a pair.

    `loss` gets the indices of the group's chosen and of its rejected sequences, whose advantages
    are positive and negative, at least one of each. `values` [sequences] is what it is computed of.
    """
    labels = batch.sequence_advantages

    def of_group(members: Tensor) -> Tensor:
        chosen, rejected = members[labels[members] > 0], members[labels[members] < 0]
        if not len(chosen) or not len(rejected):
            return values.sum() * 0.0
        return loss(chosen, rejected)

    return batch.spread_groups([of_group(members) for members in batch.members()])


def over_margins(batch: TokenBatch, values: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Spread a group's mean pair loss on all of its tokens [M]; 0 without a pair.

    A pair is every two of a group's sequences of which one has the larger advantage: `loss` gets
    how far its value is above the other's [pairs].
    """
    labels = batch.sequence_advantages

    def of_group(members: Tensor) -> Tensor:
        own, label = values[members], labels[members]
        better = label[:, None] > label[None]
        if not better.any():
            return values.sum() * 0.0
        return loss((own[:, None] - own[None])[better]).mean()

    return batch.spread_groups([of_group(members) for members in batch.members()])


def log_sigmoid(values: Tensor) -> Tensor:
    """log(1 / (1 + exp(-values))) of any shape, finite for every finite value."""
    return -values.new_zeros(()).logaddexp(-values)
