"""Mathematics in words (GSM8K, MATH and sets like them): one boxed answer, judged by its value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.rewards.graded import grade
from mmrl.rewards.grammar import BoxedAnswer, Think
from mmrl.rewards.math import LAZY_IMPORTS, MathPolicy
from mmrl.rewards.math_answers import free_form_gold, grade_math, write_gold
from mmrl.rewards.parsed import Parsed
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, Record, Sample, Score, Text

GSM8K_MARK = "####"


@dataclass(frozen=True)
class Task(contract.Task):
    """`answer` may end a solution after `####` (GSM8K); `level` and `type` are MATH's.

    A record's `target_length`, in tokens, is asked for in the prompt (INTELLECT-2, L1).
    """

    think: Think = "required"
    relative_tolerance: float = 0.0

    name: ClassVar[str] = "math"
    summary: ClassVar[str] = "problems in words, one mathematical answer"
    parts: ClassVar[Mapping[str, RewardPart]] = {
        "accuracy": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0, 0.1),
    }
    metric: ClassVar[str] = "accuracy"
    imports: ClassVar[tuple[str, ...]] = LAZY_IMPORTS

    def sample(self, record: Record) -> Sample:
        """Ask a problem; the gold is a formula, or a phrase where it reads as none."""
        fields = record.fields
        question = fields.get("problem") or fields.get("question")
        if not question:
            raise ValueError("the record has no problem")
        gold = free_form_gold(str(fields["answer"]).rpartition(GSM8K_MARK)[2].strip())
        grammar = BoxedAnswer(self.think)
        asked = [f"Think for {length} tokens."] if (length := _asked_length(fields)) else []
        return Sample(
            id=record.id,
            task=self.name,
            parts=(Text(" ".join([f"{question}\n{grammar.instruction()}", *asked])),),
            gold=gold,
            target=grammar.write(write_gold(gold)),
            meta={
                "type": str(fields.get("type") or fields.get("level") or "all"),
                **({"target_length": length} if length else {}),
            },
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one box."""
        region = BoxedAnswer(self.think).parse(answer)
        parsed: Parsed[Any] = region.answer
        right = False
        if region.answer.value is not None:
            policy = MathPolicy(relative_tolerance=self.relative_tolerance)
            parsed, right = grade_math(region.answer.value, gold, policy)
        return grade(region, parsed, right)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy per kind of problem."""
        return mean_by("type", values, metas)


def _asked_length(fields: Mapping[str, Any]) -> int:
    """The tokens that a record asks for; 0 if it does not."""
    length = int(fields.get("target_length") or 0)
    if length < 0:
        raise ValueError(f"target_length {length} is below 0")
    return length
