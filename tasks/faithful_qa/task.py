"""Faithful question answering (CANOE): a passage and a short answer from a context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.task import RewardPart
from mmrl.tasks.faithful_qa.reward import (
    LongAndShort,
    copied,
    fair_length,
    same_answer,
    supports,
)
from mmrl.types import Answer, Record, Sample, Score, Text


@dataclass(frozen=True, slots=True)
class Faithful:
    """Accepted short answers, the context that the passage is measured by, and the question."""

    answers: tuple[str, ...]
    context: str
    question: str


@dataclass(frozen=True)
class Task(contract.Task):
    """Four terms of 0 or 1: short answer, support by the passage, length, format.

    `influence` asked: the policy, asked again with the passage in the place of the context, gives
    the right short answer; stated: the passage states it word for word. `code` takes the length
    term as published: whatever the rest, and also for a copied stretch.
    """

    think: Think = "required"
    influence: Literal["stated", "asked"] = "stated"
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "faithful_qa"
    summary: ClassVar[str] = "a passage and a short answer that keep to a context"
    parts: ClassVar[Mapping[str, RewardPart]] = {
        "accuracy": RewardPart(0.0, 1.0),
        "influence": RewardPart(0.0, 1.0),
        "length": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0),
    }
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `question`, `context`, `answer` (a text or a list of accepted ones)."""
        fields = record.fields
        answers = fields["answer"] if isinstance(fields["answer"], list) else [fields["answer"]]
        gold = Faithful(tuple(map(str, answers)), str(fields["context"]), str(fields["question"]))
        if not answers or not all(same_answer(a, [a]) for a in gold.answers):
            raise ValueError(f"an answer is empty: {answers!r:.60}")
        target = _passage(gold)
        if not fair_length(target, gold.context):
            raise ValueError("the context is too short for a passage that answers from it")
        grammar = LongAndShort(self.think)
        question = f"Context: {gold.context}\nQuestion: {gold.question}"
        return Sample(
            id=record.id,
            task=self.name,
            parts=(Text(f"{question}\n{grammar.instruction()}"),),
            gold=gold,
            target=grammar.write(target, gold.answers[0]),
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade both regions; the length term needs a right format and a passage of one's own."""
        long, short = LongAndShort(self.think).parse(answer)
        text, passage = short.answer.value, long.answer.value
        right = text is not None and same_answer(text, gold.answers)
        fair = passage is not None and fair_length(passage, gold.context)
        if self.variant == "strict" and passage is not None:
            fair = fair and short.well_formed and not copied(passage, gold.context)
        return Score(
            {
                "accuracy": float(right),
                "influence": float(passage is not None and self._supports(passage, gold, answer)),
                "length": float(fair),
                "format": float(short.well_formed),
            },
            metric=float(right),
            status=short.answer.status,
            reason=short.answer.reason,
        )

    def follow_up(self, sample: Sample, text: str) -> Sample | None:
        """The same question about the answer's passage, where the passage can be read."""
        passage = LongAndShort(self.think).parse(Answer(text))[0].answer.value
        if self.influence == "stated" or passage is None:
            return None
        told = f"Context: {passage}\nQuestion: {sample.gold.question}"
        asked = Text(f"{told}\n{TagAnswer(self.think).instruction()}")
        return replace(sample, parts=(asked,), target=None, reference=None, variant="passage")

    def _supports(self, passage: str, gold: Faithful, answer: Answer) -> bool:
        """Whether the passage leads to an accepted answer.

        Raises ValueError where the policy was to be asked and was not.
        """
        if self.influence == "stated":
            return supports(passage, gold.answers)
        if answer.followed is None:
            raise ValueError("the policy was not asked about the passage: set influence=stated")
        said = TagAnswer(self.think).parse(Answer(answer.followed)).answer.value
        return said is not None and same_answer(said, gold.answers)


def _passage(gold: Faithful) -> str:
    """The answer, then the beginning of the context, half as long as it in all."""
    start = f"{gold.answers[0]}. "
    return start + gold.context[: max(0, len(gold.context) // 2 - len(start))].strip()
