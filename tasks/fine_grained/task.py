"""Fine-grained classification: one label of a closed set."""

from __future__ import annotations

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
from mmrl.rewards.labels import Label, contained, grade_label
from mmrl.rewards.parsed import Parsed
from mmrl.task import RewardPart
from mmrl.types import Answer, Record, Sample, Score, Text


@dataclass(frozen=True)
class Task(contract.Task):
    """Equality with the gold label, case and underscores aside.

    `labels` is the closed set where records do not carry one. `code` is Visual-RFT's rule, by
    which either text may contain the other; the metric is strict in every variant.
    """

    think: Think = "required"
    labels: tuple[str, ...] = ()
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "fine_grained"
    summary: ClassVar[str] = "species, models and breeds, one label of a closed set"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "turns"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `image`, `problem`, `solution` in tags, and `labels` if it has any."""
        fields = record.fields
        labels = tuple(map(str, fields.get("labels") or self.labels))
        gold = Label(tagged_solution(fields["solution"]), labels)
        grammar = TagAnswer(self.think)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                *media_refs(record, "image", "image"),
                Text(f"{fields['problem']}\n{grammar.instruction()} The answer is one name."),
            ),
            gold=gold,
            target=grammar.write(gold.name),
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region; evidence carries the verdict of the containment rule."""
        region = TagAnswer(self.think).parse(answer)
        parsed: Parsed[str] = region.answer
        right = False
        if region.answer.value is not None:
            parsed, right = grade_label(region.answer.value, gold)
        as_coded = contained(first_region_or_text(answer.text), gold.name)
        paid = as_coded if self.variant == "code" else right
        return grade(region, parsed, paid, right, {"contained": as_coded})

    def asked(self, sample: Sample) -> str:
        """The question without the line of instructions below it."""
        return super().asked(sample).rpartition("\n")[0]

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Share of answers that the containment rule of Visual-RFT's evaluation accepts."""
        return {"contained": sum(bool(m.get("contained")) for m in metas) / len(metas)}
