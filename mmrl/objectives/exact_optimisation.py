"""EXO: the policy's choice among a group's answers, fitted to that of their rewards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Objective, TokenBatch
from mmrl.objectives.margins import ReferencePairs, log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EXO(ReferencePairs):
    """KL(policy's choice || rewards' choice) among the answers to a prompt. arXiv 2402.00856.

    Of pairs (equation 16) the better one is chosen with probability 1 - `smoothing`. With a
    `temperature`, advantages are rewards, and the choice among all K answers of a group is the soft
    maximum of rewards / `temperature` (equation 13).
    """

    smoothing: Annotated[float, Field(gt=0, lt=0.5)] = 1e-3
    temperature: Annotated[float, Field(gt=0)] | None = None

    paper: ClassVar[str] = "arXiv 2402.00856"

    def losses(self, batch: TokenBatch) -> Tensor:
        """KL of each pair's, or of the group's, choice, on all of the group's tokens [M]."""
        if self.temperature is None:
            return super().losses(batch)
        implied = self.beta * self.scores(batch)
        wanted = batch.sequence_value(batch.advantages) / self.temperature

        def of_group(members: Tensor) -> Tensor:
            own, aim = implied[members].log_softmax(0), wanted[members].log_softmax(0)
            return (own.exp() * (own - aim)).sum()

        return batch.spread_groups([of_group(members) for members in batch.members()])

    def of_margins(self, margins: Tensor) -> Tensor:
        """KL between two choices of the better one [pairs]."""
        better, worse = log_sigmoid(margins), log_sigmoid(-margins)
        aim, rest = math.log1p(-self.smoothing), math.log(self.smoothing)
        return better.exp() * (better - aim) + worse.exp() * (worse - rest)


OBJECTIVES: Mapping[str, Objective] = {"exo": EXO()}
