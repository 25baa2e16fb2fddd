"""SDPO: DPO of the segment in which two episodes part. arXiv 2501.01821.

From the first turn that differs on, as many turns of either: `turns`, or as many as the shorter one
has left. What went before is the same in both, what comes after depends on both. sDPO, which takes
data in steps (arXiv 2403.19270), is `dpo` in phases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.pairs import GroupParams, Paired, on_pairs
from mmrl.algorithms.stages.turns import turns
from mmrl.objectives.preference import Preference
from mmrl.stage import Need
from mmrl.types import Floats, Group, Response, TokenSpan, TrainSample

SUMMARY = "DPO of the turns from where two episodes part"
PAPER = "arXiv 2501.01821"


class Params(GroupParams):
    beta: float = Field(0.1, gt=0)
    turns: int = Field(0, ge=0, description="of a segment; 0: as many as both have left")


@dataclass(frozen=True)
class Segments(Paired):
    """The best and the worst episode, of which only the segment where they part is trained."""

    turns: int = 0

    needs: ClassVar[frozenset[Need]] = frozenset({"turns"})

    def samples(self, group: Group, index: int, ranks: Floats) -> list[TrainSample]:
        made = super().samples(group, index, ranks)
        spans = turns(group)
        if not np.isfinite(ranks).any():
            return made
        both = int(np.nanargmax(ranks)), int(np.nanargmin(ranks))
        first, last = segment(
            [group.responses[i] for i in both], [spans[i] for i in both], self.turns
        )
        for i in both:
            kept = np.zeros(len(made[i].mask), dtype=bool)
            for span in spans[i][first:last]:
                kept[span.start : span.end] = True
            made[i] = replace(made[i], mask=made[i].mask & kept)
        return made


def segment(
    responses: Sequence[Response], spans: Sequence[Sequence[TokenSpan]], most: int
) -> tuple[int, int]:
    """The first turn in which two episodes differ, and where the segment ends, of `most` turns."""
    shorter = min(map(len, spans))
    said = [
        [response.ids[span.start : span.end].tolist() for span in own]
        for response, own in zip(responses, spans, strict=True)
    ]
    first = next((t for t in range(shorter) if said[0][t] != said[1][t]), shorter)
    return first, min(shorter, first + most) if most else shorter


def build(params: Params) -> Algorithm:
    """Fill credit, objective and reducer."""
    return on_pairs("sdpo", params, Preference("dpo", params.beta), Segments(turns=params.turns))
