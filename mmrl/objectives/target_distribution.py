"""f-DPG: the policy is moved towards the reference weighed by rewards, by any f-divergence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mmrl.objective import Aggregation, Objective, TokenBatch
from mmrl.stage import Need

if TYPE_CHECKING:
    from torch import Tensor

Divergence = Literal["kl", "reverse_kl", "js", "tv"]


@dataclass(frozen=True)
class FDPG(Objective):
    """The score-function gradient of an f-divergence to p = reference x exp(reward / `beta`) / Z.

    arXiv 2302.08215, theorem 1: E f'(policy / p) grad log policy, over answers of the policy. `kl`
    is KL(p || policy), `reverse_kl` KL(policy || p), `js` Jensen-Shannon's, `tv` total variation. Z
    is the mean of reference x exp(reward / beta) / policy over the group's answers, and the mean of
    f' is taken off. The loss has that gradient; its value is 0. Advantages are rewards.
    """

    beta: Annotated[float, Field(gt=0)] = 0.1
    divergence: Divergence = "js"

    paper: ClassVar[str] = "arXiv 2302.08215"
    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    on_policy: ClassVar[bool] = True
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"

    def losses(self, batch: TokenBatch) -> Tensor:
        """Centred slopes times log-probs of a group, on all of its tokens [M]."""
        written = batch.sequence_sum(batch.logprobs)
        rewards = batch.sequence_value(batch.advantages)
        away = batch.sequence_sum(batch.logprobs - batch.reference).detach() - rewards / self.beta

        def of_group(members: Tensor) -> Tensor:
            own, count = away[members], len(members)
            log_z = (-own).logsumexp(0) - math.log(max(count, 1))
            slopes = self.slope(own + log_z)
            moved = written[members] - written[members].detach()
            return ((slopes - slopes.mean()) * moved).sum() / max(count, 1)

        return batch.spread_groups([of_group(members) for members in batch.members()])

    def slope(self, log_ratio: Tensor) -> Tensor:
        """Return f' at policy / p, of the log of that ratio [G]; of `kl` within e^20."""
        match self.divergence:
            case "kl":
                return -(-log_ratio).clamp(max=20.0).exp()
            case "reverse_kl":
                return log_ratio + 1
            case "js":
                return math.log(2) - log_ratio.new_zeros(()).logaddexp(-log_ratio)
            case "tv":
                return log_ratio.sign() / 2


OBJECTIVES: Mapping[str, Objective] = {"f_dpg": FDPG()}
