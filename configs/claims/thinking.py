"""Count handwritten digits, with or without a thought before the answer: thoughts have any length.

A thought counts the rows of the canvas, as often as the record says (`passes`); a second time says
nothing that the first did not. So what a method does to lengths shows, and whether accuracy stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.grammar import TagAnswer
from mmrl.rewards.numbers import parse_integer
from mmrl.task import RewardPart
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

GRAMMAR = TagAnswer(think="optional")
QUESTION = f"Count the digits. {GRAMMAR.instruction()}"


@dataclass(frozen=True)
class Task(contract.Task):
    """Exact match of the number in the answer region, whatever was thought."""

    name: ClassVar[str] = "thinking"
    summary: ClassVar[str] = "count the handwritten digits, thinking as long as you like"
    parts: ClassVar[dict[str, RewardPart]] = {"accuracy": RewardPart(0.0, 1.0)}
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a counting record of the `digits` recipe; difficulty is the count."""
        count, rows = int(record.fields["count"]), " ".join(map(str, record.fields["rows"]))
        thought = " ".join([rows] * int(record.fields.get("passes", 0)))
        return Sample(
            id=record.id,
            task=self.name,
            parts=(MediaRef("image", media_source(record, record.fields["image"])), Text(QUESTION)),
            gold=count,
            target=GRAMMAR.write(str(count), thought=thought),
            meta={"difficulty_score": count},
        )

    def score(self, gold: int, answer: Answer) -> Score:
        """1 for the right number, else 0."""
        parsed = GRAMMAR.parse(answer).answer.then(parse_integer)
        right = float(parsed.value == gold)
        return Score({"accuracy": right}, metric=right, status=parsed.status, reason=parsed.reason)
