"""DPO and IPO: which of two answers is better, by what the policy implies against a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch
from mmrl.objectives.margins import log_sigmoid, over_margins
from mmrl.stage import Need

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Preference(Objective):
    """DPO (arXiv 2305.18290) or IPO (arXiv 2310.12036) over all pairs of a group.

    Chosen is where the advantage is positive, rejected where it is negative. `average` divides
    log-probs by the length: IPO in TRL does, in OpenRLHF it does not.
    """

    loss: Literal["dpo", "ipo"] = "dpo"
    beta: Annotated[float, Field(gt=0)] = 0.1
    average: bool = False

    paper: ClassVar[str] = "arXiv 2305.18290, arXiv 2310.12036"
    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Mean pair loss of a group, on all of its tokens [M]."""
        total = batch.sequence_mean if self.average else batch.sequence_sum
        return over_margins(batch, total(batch.logprobs - batch.reference), self._of_margins)

    def _of_margins(self, margins: Tensor) -> Tensor:
        if self.loss == "ipo":
            return (margins - 1 / (2 * self.beta)).square()
        return -log_sigmoid(self.beta * margins)


OBJECTIVES: Mapping[str, Objective] = {"dpo": Preference(), "ipo": Preference(loss="ipo")}
