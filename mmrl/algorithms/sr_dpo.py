"""Sr-DPO and Sr-IPO: margins that follow what the policy itself makes of two answers.

arXiv 2405.21040. The policy's view is its log-prob where it is told to answer well. The paper puts
that aid before the question; here it stands at the prompt's end, where the answer begins (a
variant), so that the media are encoded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.pairs import Paired, PairParams, on_pairs, on_tokens
from mmrl.algorithms.stages.policy_view import Aided, seen
from mmrl.objectives.self_refined import AIDED, SelfRefined
from mmrl.stage import Need
from mmrl.types import Floats, Group

SUMMARY = "DPO or IPO less the policy's own preference under an aid (variant)"
PAPER = "arXiv 2405.21040"


class Params(PairParams):
    loss: Literal["dpo", "ipo"] = "dpo"
    strength: float = Field(0.1, ge=0, description="lambda, of the policy's own preference")
    aid: str = Field(
        "Here is a correct, clear and helpful answer.\n",
        min_length=1,
        description="what the prompt ends with where the policy's own preference is measured",
    )


@dataclass(frozen=True)
class WithAided(Paired):
    """Pairs, and the log-prob of the whole response under the aid on each of its tokens [T]."""

    needs: ClassVar[frozenset[Need]] = frozenset({"aided"})
    gives: ClassVar[str] = AIDED

    def second(self, group: Group, ranks: Floats) -> list[Floats]:
        return on_tokens(group, seen(group, Aided, "aided").values)


def build(params: Params) -> Algorithm:
    """Fill credit, objective, reducer and the aid."""
    objective = SelfRefined(params.beta, params.loss, params.strength)
    return on_pairs("sr_dpo", params, objective, WithAided(params.pairs), aid=params.aid)
