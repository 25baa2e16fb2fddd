"""Self-play by regression: an answer's log-ratio follows how often it wins. SPPO, RSPO, GPO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch, kl_estimate
from mmrl.stage import Need

if TYPE_CHECKING:
    from torch import Tensor

NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class SPPO(Objective):
    """Regress log(policy / old policy) of an answer on `eta` x its advantage. arXiv 2405.00675.

    The advantage is the win rate against the old policy less 1/2 (equation 4.7), or the score of
    general preference optimisation (arXiv 2410.02197, `eta` its 1 / beta). A step is an iteration:
    the old policy is that of its start.
    """

    eta: Annotated[float, Field(gt=0)] = 1.0

    paper: ClassVar[str] = "arXiv 2405.00675, arXiv 2410.02197"
    reducer: ClassVar[Aggregation | None] = "seq-mean-token-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Squared residual of each sequence, on all of its tokens [M]."""
        wanted = self.eta * batch.sequence_value(batch.advantages)
        return (batch.sequence_sum(batch.log_ratio) - wanted).square()[batch.sequence]


@dataclass(frozen=True)
class RSPO(SPPO):
    """SPPO held to a reference by both KLs. arXiv 2503.00030.

    `reverse` weighs KL(policy || reference), `forward` KL(reference || policy), each summed over an
    answer's tokens by the estimate whose gradient on the policy's samples is its own: k2, and k3.
    """

    reverse: NonNegative = 0.1
    forward: NonNegative = 0.1

    paper: ClassVar[str] = "arXiv 2503.00030"
    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})

    def losses(self, batch: TokenBatch) -> Tensor:
        """Squared residual and KLs of each sequence, on all of its tokens [M]."""
        away = batch.logprobs - batch.reference
        held = self.reverse * kl_estimate(away, "k2") + self.forward * kl_estimate(away, "k3")
        return super().losses(batch) + batch.sequence_sum(held)[batch.sequence]


OBJECTIVES: Mapping[str, Objective] = {"sppo": SPPO(), "rspo": RSPO(), "gpo": SPPO()}
