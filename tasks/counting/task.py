"""CLEVR-style counting: one integer, right or wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import media_refs
from mmrl.rewards.graded import (
    ACCURACY_AND_FORMAT,
    first_region_or_text,
    grade,
    tagged_solution,
)
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.numbers import parse_integer
from mmrl.task import RewardPart, mean_by_each
from mmrl.types import Answer, Record, Sample, Score, Text

_TAIL_CHARACTERS = 4_096
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


@dataclass(frozen=True)
class Task(contract.Task):
    """Integer equality. `code` is R1-V's reward, which takes the last number of anything."""

    think: Think = "required"
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "counting"
    summary: ClassVar[str] = "count objects in a picture, exact match"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "turns"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `image`, `problem` and `solution`, or `question` and `ground_truth`."""
        fields = record.fields
        solution = fields["solution"] if "solution" in fields else fields["ground_truth"]
        gold = parse_integer(tagged_solution(solution))
        if gold.value is None or gold.value < 0:
            raise ValueError(f"the gold is no count: {solution!r:.40}")
        question = fields["problem"] if "problem" in fields else fields["question"]
        grammar = TagAnswer(self.think)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                *media_refs(record, "image", "image", "image_path"),
                Text(f"{question}\n{grammar.instruction()} The answer is a number in digits."),
            ),
            gold=gold.value,
            target=grammar.write(str(gold.value)),
            meta={"source": fields.get("source"), "count": gold.value},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region; the metric is strict in every variant."""
        region = TagAnswer(self.think).parse(answer)
        parsed = region.answer.then(parse_integer)
        right = parsed.value == gold
        paid = right or (self.variant == "code" and _right_as_coded(answer.text, gold))
        return grade(region, parsed, paid, right)

    def asked(self, sample: Sample) -> str:
        """The question without the line of instructions below it."""
        return super().asked(sample).rpartition("\n")[0]

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy per source and per true count."""
        return mean_by_each(("source", "count"), values, metas)


def _right_as_coded(text: str, gold: int) -> bool:
    """The last number of the whole completion, or the exact text of the first region."""
    if first_region_or_text(text) == str(gold):
        return True
    numbers = _NUMBER.findall(text[-_TAIL_CHARACTERS:])
    return bool(numbers) and float(numbers[-1]) == gold
