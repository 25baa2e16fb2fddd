"""How many handwritten digits: one integer, right or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.grammar import TagAnswer
from mmrl.rewards.numbers import parse_integer
from mmrl.task import RewardPart
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

GRAMMAR = TagAnswer(think="none")
QUESTION = f"How many handwritten digits are in the picture? {GRAMMAR.instruction()}"


@dataclass(frozen=True)
class Task(contract.Task):
    """Exact match of the one number in the answer region."""

    name: ClassVar[str] = "digit_count"
    summary: ClassVar[str] = "count the handwritten digits on a canvas, exact match"
    parts: ClassVar[dict[str, RewardPart]] = {"accuracy": RewardPart(0.0, 1.0)}
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "turns"

    def sample(self, record: Record) -> Sample:
        """Ask a record of the `digits` recipe: `image` and `count`."""
        gold = int(record.fields["count"])
        return Sample(
            id=record.id,
            task=self.name,
            parts=(MediaRef("image", media_source(record, record.fields["image"])), Text(QUESTION)),
            gold=gold,
            target=GRAMMAR.write(str(gold)),
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """1 for the right number, else 0."""
        parsed = GRAMMAR.parse(answer).answer.then(parse_integer)
        right = float(parsed.value == gold)
        return Score({"accuracy": right}, metric=right, status=parsed.status, reason=parsed.reason)

    def asked(self, sample: Sample) -> str:
        """Nothing that hangs on sides: digits are counted however they lie."""
        return ""
