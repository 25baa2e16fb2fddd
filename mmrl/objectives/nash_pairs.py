"""Self-play on pairs: DNO, INPO and the online IPO of EGPO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch
from mmrl.objectives.margins import log_sigmoid, over_margins
from mmrl.stage import Need

if TYPE_CHECKING:
    from torch import Tensor

Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class DNO(Objective):
    """Direct Nash optimisation: the odds of two answers follow those of their win rates.

    arXiv 2404.03715, the regression of its algorithm 1: the cross entropy of
    sigmoid(difference of win rates) and sigmoid(`eta` x margin of log-ratios to the old policy),
    over every two answers of a group. Advantages are win rates.
    """

    eta: Positive = 1.0

    paper: ClassVar[str] = "arXiv 2404.03715"
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Mean cross entropy over every two answers of a group, on all of its tokens [M]."""
        implied = self.eta * batch.sequence_sum(batch.log_ratio)
        rates = batch.sequence_value(batch.advantages)

        def loss(margins: Tensor, gaps: Tensor) -> Tensor:
            wanted = gaps.sigmoid()
            return -wanted * log_sigmoid(margins) - (1 - wanted) * log_sigmoid(-margins)

        return over_every_two(batch, implied, rates, loss)


@dataclass(frozen=True)
class INPO(Objective):
    """Iterative Nash policy optimisation. arXiv 2407.00617.

    An IPO loss whose reference is a mixture of the reference and the old policy, by `tau` / `eta`
    and the rest: the margin is brought to 1 / (2 eta).
    """

    eta: Positive = 0.0075
    tau: Positive = 0.0025

    paper: ClassVar[str] = "arXiv 2407.00617"
    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Mean squared residual over the pairs of a group, on all of its tokens [M]."""
        share = self.tau / self.eta
        held = share * batch.reference + (1 - share) * batch.old
        away = batch.sequence_sum(batch.logprobs - held)
        return over_margins(batch, away, lambda m: (m - 1 / (2 * self.eta)).square())


@dataclass(frozen=True)
class OnlineIPO(Objective):
    """IPO on win rates: the margin to the reference follows that of win rates / `beta`.

    The online IPO loss of EGPO, arXiv 2503.08942. Advantages are win rates against the opponent.
    """

    beta: Positive = 0.1

    paper: ClassVar[str] = "arXiv 2503.08942"
    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Mean squared residual over every two answers of a group, on all of its tokens [M]."""
        away = batch.sequence_sum(batch.logprobs - batch.reference)
        wanted = batch.sequence_value(batch.advantages) / self.beta
        return over_every_two(batch, away, wanted, lambda m, gaps: (m - gaps).square())


def over_every_two(
    batch: TokenBatch, own: Tensor, wanted: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Spread a group's mean loss over every two of its answers on all of its tokens [M].

    `loss` gets the margins of `own` and of `wanted` [sequences], both ways round [pairs]; a group
    of one has no loss.
    """

    def of_group(members: Tensor) -> Tensor:
        first, second = (members[:, None] != members[None]).nonzero(as_tuple=True)
        if not len(first):
            return own.sum() * 0.0
        one, other = members[first], members[second]
        return loss(own[one] - own[other], wanted[one] - wanted[other]).mean()

    return batch.spread_groups([of_group(members) for members in batch.members()])


OBJECTIVES: Mapping[str, Objective] = {
    "dno": DNO(),
    "inpo": INPO(),
    "online_ipo": OnlineIPO(),
}
