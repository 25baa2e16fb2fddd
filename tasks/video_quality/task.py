"""Video quality (VideoChat-R1): one word of a closed set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, grade
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.text import normalize
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text


class Gold(NamedTuple):
    """The right label and all that may be said."""

    label: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Task(contract.Task):
    """Exact label, case aside, of `labels` or of those the record lists."""

    labels: tuple[str, ...] = ("excellent", "good", "fair", "poor", "bad")
    think: Think = "required"

    name: ClassVar[str] = "video_quality"
    summary: ClassVar[str] = "quality of a video in one word of a closed set"
    parts: ClassVar = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a record's `instruction`; its `answer` must be one of the labels."""
        fields = record.fields
        labels = tuple(normalize(str(label)) for label in fields.get("labels") or self.labels)
        gold = Gold(normalize(str(fields["answer"])), labels)
        if gold.label not in labels:
            raise ValueError(f"answer {fields['answer']!r:.40} is none of {labels}")
        grammar = TagAnswer(self.think)
        question = f"{fields['instruction']}\nThe answer is one of: {', '.join(labels)}."
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef("video", media_source(record, fields["video"])),
                Text(f"{question}\n{grammar.instruction()}"),
            ),
            gold=gold,
            target=grammar.write(gold.label),
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """1 for the right label, else 0."""
        region = TagAnswer(self.think).parse(answer)
        parsed = region.answer.then(lambda text: _read_label(text, gold[1]))
        return grade(region, parsed, parsed.value == gold[0])


def _read_label(text: str, labels: tuple[str, ...]) -> Parsed[str]:
    label = normalize(text)
    return ok(label) if label in labels else malformed(f"not one of the labels: '{text:.40}'")
