"""In which quarter of a heat map is the hottest cell? One of four answers, right or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, MediaKind, MediaRef, Record, Sample, Score, Text

QUARTERS = ("top left", "top right", "bottom left", "bottom right")


@dataclass(frozen=True)
class Task(contract.Task):
    """`think` says whether a thought may, must or must not precede the answer."""

    think: Think = "none"

    name: ClassVar[str] = "hottest"
    summary: ClassVar[str] = "the quarter of a heat map that holds the hottest cell"
    parts: ClassVar[Mapping[str, RewardPart]] = {"accuracy": RewardPart(0.0, 1.0)}
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a record with `grid` (a CSV file beside the records) and `quarter`."""
        gold = str(record.fields["quarter"])
        if gold not in QUARTERS:
            raise ValueError(f"quarter '{gold}' is none of {', '.join(QUARTERS)}")
        source = media_source(record, record.fields["grid"])
        grammar = TagAnswer(self.think)
        asked = f"Which quarter holds the reddest cell: {', '.join(QUARTERS)}?"
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef(cast(MediaKind, "heatmap"), source),
                Text(f"{asked} {grammar.instruction()}"),
            ),
            gold=gold,
            target=grammar.write(gold),
            meta={"quarter": gold},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """1 for the quarter alone, in any letter case; naming two earns nothing."""
        parsed = TagAnswer(self.think).parse(answer).answer
        right = float((parsed.value or "").lower() == gold)
        return Score({"accuracy": right}, metric=right, status=parsed.status, reason=parsed.reason)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Accuracy by the right quarter: a model that always says one is seen at once."""
        return mean_by("quarter", values, metas)
