"""MODPO: preferences of one objective, corrected by what the others pay for the same answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Objective, TokenBatch
from mmrl.objectives.margins import ReferencePairs

if TYPE_CHECKING:
    from torch import Tensor

OTHERS = "the weighed rewards of the other objectives"


@dataclass(frozen=True)
class MODPO(ReferencePairs):
    """DPO of one of several weighed objectives. arXiv 2310.03708, the loss of MODPO.

    The margin is (beta x that of log-ratios - that of the other objectives' weighed rewards) over
    `weight`, that of the objective which preferences are of.
    """

    weight: Annotated[float, Field(gt=0, le=1)] = 0.5

    paper: ClassVar[str] = "arXiv 2310.03708"
    reads: ClassVar[str] = OTHERS

    def scores(self, batch: TokenBatch) -> Tensor:
        """Return what `beta` multiplies [sequences]."""
        paid = batch.sequence_value(batch.beside)
        return (super().scores(batch) - paid / self.beta) / self.weight


OBJECTIVES: Mapping[str, Objective] = {"modpo": MODPO()}
