"""Intent detection: one of the candidate intents of an utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, grade
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.labels import Label, grade_label
from mmrl.rewards.parsed import Parsed
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, Record, Sample, Score, Text


@dataclass(frozen=True)
class Task(contract.Task):
    """Equality with the gold intent; anything outside the candidates is malformed."""

    think: Think = "required"

    name: ClassVar[str] = "intent"
    summary: ClassVar[str] = "the intent of an utterance among candidates"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `utterance`, `intents` (name, or name to description), `intent`, `seen`."""
        fields = record.fields
        intents = fields["intents"]
        gold = Label(str(fields["intent"]), tuple(map(str, intents)))
        if not gold.labels:
            raise ValueError("a record needs its candidate intents")
        lines = [f"- {n}: {d}" for n, d in intents.items()] if isinstance(intents, dict) else []
        listed = "\n".join(lines or [f"- {name}" for name in gold.labels])
        grammar = TagAnswer(self.think)
        question = f"What does the user want?\nUser: {fields['utterance']}\nIntents:\n{listed}"
        return Sample(
            id=record.id,
            task=self.name,
            parts=(Text(f"{question}\n{grammar.instruction()} The answer is one intent's name."),),
            gold=gold,
            target=grammar.write(gold.name),
            meta={"intents": "seen" if fields.get("seen", True) else "unseen"},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region."""
        region = TagAnswer(self.think).parse(answer)
        parsed: Parsed[str] = region.answer
        right = False
        if region.answer.value is not None:
            parsed, right = grade_label(region.answer.value, gold)
        return grade(region, parsed, right)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy of intents seen and unseen in training."""
        return mean_by("intents", values, metas)
