"""GVM-RAFT: more responses where they lower the variance of the gradient most.

arXiv 2505.02391. A phase with `gvm_probe` notes every prompt's acceptance rate and gradient norm
under `probes` in the algorithm's state by sample id; then rejection sampling. A prompt that was
never right gets no response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import GroupCredit, RawReward
from mmrl.errors import UserError
from mmrl.objective import Reducer
from mmrl.objectives.likelihood import Likelihood
from mmrl.stage import Context, Need, Stage
from mmrl.types import Floats, Prompt
from mmrl.validation import Section

SUMMARY = "rejection sampling with responses allocated by gradient variance"
PAPER = "arXiv 2505.02391"


class Params(Section):
    group_size: int = Field(8, gt=0, description="responses to a prompt on average")
    alpha: float = Field(1e-3, gt=0)
    beta: float = Field(2.0, gt=0)


@dataclass(frozen=True)
class ByGradient(Stage):
    """Share size x prompts responses out by the probes; a prompt without one raises UserError."""

    size: int
    alpha: float
    beta: float

    needs: ClassVar[frozenset[Need]] = frozenset({"probes"})

    def __call__(self, prompts: Sequence[Prompt], context: Context) -> Sequence[int]:
        probes = context.state.get("probes", {})
        missing = [p.sample.id for p in prompts if p.sample.id not in probes]
        if missing:
            raise UserError(f"no probe of '{missing[0]}': run a phase with gvm_probe first")
        rows = [probes[p.sample.id] for p in prompts]
        rates = np.array([row["rate"] for row in rows])
        norms = np.array([row["norm"] for row in rows])
        ratio = allocation(rates, norms, self.alpha, self.beta)
        return whole_numbers(ratio, self.size * len(prompts))


def allocation(rates: Floats, norms: Floats, alpha: float, beta: float) -> Floats:
    """Share [P] of the responses for each prompt: norm / sqrt(p + alpha / p^(beta - 1)).

    0 where the rate or the norm is 0; equal shares where all of them are.
    """
    useful = (rates > 0) & (norms > 0)
    if not useful.any():
        return np.full(len(rates), 1 / max(len(rates), 1))
    p = np.where(useful, rates, 1.0)
    shares = np.where(useful, norms / np.sqrt(p + alpha / p ** (beta - 1)), 0.0)
    return np.asarray(shares / shares.sum())


def whole_numbers(shares: Floats, total: int) -> list[int]:
    """Round shares [P] of a total, keeping the sum; largest remainders first, ties in order."""
    exact = shares * total
    counts = np.floor(exact).astype(int)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    return [int(count) for count in counts]


def build(params: Params) -> Algorithm:
    """Fill plan, credit, objective and reducer."""
    return Algorithm(
        name="gvm_raft",
        plan=ByGradient(params.group_size, params.alpha, params.beta),
        credit=GroupCredit(RawReward(floor=0.0)),
        objective=Likelihood(),
        reducer=Reducer("token-mean"),
    )
