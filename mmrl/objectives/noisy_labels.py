"""DPO where some labels are the wrong way round: rDPO and the conservative cDPO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Objective
from mmrl.objectives.margins import ReferencePairs, log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NoisyLabels(ReferencePairs):
    """DPO's loss on labels of which a share `flipped` is wrong.

    `unbiased` is rDPO (Chowdhury et al., arXiv 2403.00409): in expectation over the flips it is
    DPO's loss on clean labels. Without, it is cDPO (Mitchell, 2023): that expectation.
    """

    flipped: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    unbiased: bool = True

    paper: ClassVar[str] = "arXiv 2403.00409"

    def of_margins(self, margins: Tensor) -> Tensor:
        """Loss of the label and of its opposite, weighed by the share that is flipped [pairs]."""
        said, opposite = -log_sigmoid(margins), -log_sigmoid(-margins)
        if self.unbiased:
            return ((1 - self.flipped) * said - self.flipped * opposite) / (1 - 2 * self.flipped)
        return (1 - self.flipped) * said + self.flipped * opposite


OBJECTIVES: Mapping[str, Objective] = {
    "rdpo": NoisyLabels(),
    "cdpo": NoisyLabels(unbiased=False),
}
