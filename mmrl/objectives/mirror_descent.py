"""Policy steps held by a KL to the old policy in place of a clip: MDPO and FixPO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from mmrl.objective import Objective, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

KL_WEIGHT = "the weight of the KL to the old policy"


@dataclass(frozen=True)
class HeldByKL(Objective):
    """REINFORCE by ratios, and a KL to the old policy with a weight that its credit gives.

    `direction`: `to_old` is KL(policy || old) of mirror descent policy optimisation (arXiv
    2005.09814), estimated on the old policy's samples by r log r - r + 1; `from_old` is
    KL(old || policy) of FixPO (arXiv 2312.05405), by r - 1 - log r, r the ratio.
    """

    direction: Literal["to_old", "from_old"] = "to_old"

    paper: ClassVar[str] = "arXiv 2005.09814, arXiv 2312.05405"
    reads: ClassVar[str] = KL_WEIGHT

    def losses(self, batch: TokenBatch) -> Tensor:
        """Minus ratio times advantage, plus the weighed KL of every token [M]."""
        ratio = batch.log_ratio.exp()
        if self.direction == "to_old":
            kl = ratio * batch.log_ratio - ratio + 1
        else:
            kl = ratio - 1 - batch.log_ratio
        return batch.beside * kl - ratio * batch.advantages


OBJECTIVES: Mapping[str, Objective] = {
    "mdpo": HeldByKL(),
    "fixpo": HeldByKL("from_old"),
}
