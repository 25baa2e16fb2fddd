"""Regressions of log-ratios on advantages, by token and by step: APA, direct-advantage PO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch
from mmrl.stage import Need

if TYPE_CHECKING:
    from torch import Tensor

STEPS = "which step of its answer each token belongs to"


@dataclass(frozen=True)
class APA(Objective):
    """Advantage-induced policy alignment, by token. arXiv 2306.02231.

    Squared difference of log(policy / reference) and advantage / `lam`.
    """

    lam: Annotated[float, Field(gt=0)] = 0.1

    paper: ClassVar[str] = "arXiv 2306.02231"
    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})

    def losses(self, batch: TokenBatch) -> Tensor:
        """Squared residual of every token [M]."""
        return (batch.logprobs - batch.reference - batch.advantages / self.lam).square()


@dataclass(frozen=True)
class DirectAdvantage(Objective):
    """Direct advantage policy optimisation, by step. arXiv 2412.18279.

    Half the squared difference of a step's log(policy / reference) and its advantage / `beta`; all
    tokens of a step share its advantage. The loss of an answer is the mean over its steps.
    """

    beta: Annotated[float, Field(gt=0)] = 0.1

    paper: ClassVar[str] = "arXiv 2412.18279"
    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    reads: ClassVar[str] = STEPS
    reducer: ClassVar[Aggregation | None] = "seq-mean-token-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Mean squared residual of each sequence's steps, on all of its tokens [M]."""
        place = batch.beside.long()
        most = int(place.max()) + 1 if len(place) else 1
        key = batch.sequence * most + place
        steps = batch.logprobs.new_zeros(batch.num_sequences * most)
        kept = batch.mask.to(steps.dtype)
        tokens = steps.index_add(0, key, kept)
        away = steps.index_add(0, key, kept * (batch.logprobs - batch.reference))
        gain = steps.index_add(0, key, kept * batch.advantages) / tokens.clamp(min=1)
        residuals = ((away - gain / self.beta).square() / 2).where(tokens > 0, 0.0)
        residuals = residuals.view(batch.num_sequences, most).sum(1)
        count = (tokens > 0).view(batch.num_sequences, most).sum(1).clamp(min=1)
        return (residuals / count)[batch.sequence]


OBJECTIVES: Mapping[str, Objective] = {"apa": APA(), "direct_advantage": DirectAdvantage()}
