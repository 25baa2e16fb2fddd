"""A mixture of visual questions: every record names its type and is graded by its own rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import interleave, media_refs
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, grade
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.parsed import Parsed
from mmrl.rewards.typed import Kind, grade_typed, typed_gold, typed_metric
from mmrl.task import RewardPart, mean_by_each
from mmrl.types import Answer, Record, Sample, Score, Text


@dataclass(frozen=True)
class Task(contract.Task):
    """Video-R1's rules by problem type; `code` compares decimal points as published.

    `problem_type` is that of records that name none.
    """

    think: Think = "required"
    variant: Literal["strict", "code"] = "strict"
    problem_type: Literal["", Kind] = ""

    name: ClassVar[str] = "vqa_mix"
    summary: ClassVar[str] = "visual questions of mixed types, each by its own verifier"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "noise"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `problem`, `problem_type`, `options`, `solution`, `image` or `images`."""
        fields = record.fields
        gold = typed_gold(fields, self.problem_type)
        images = media_refs(record, "image", "images", "image", "path")
        grammar = TagAnswer(self.think)
        question = f"{fields['problem']}{gold.question_tail}"
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                *interleave(question, "<image>", images),
                Text(f"\n{grammar.instruction()} {gold.hint}"),
            ),
            gold=gold,
            target=grammar.write(gold.answer),
            meta={"type": gold.kind, "source": fields.get("data_source")},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region by the record's type."""
        region = TagAnswer(self.think).parse(answer)
        text = region.answer.value
        parsed: Parsed[Any] = region.answer
        value = metric = 0.0
        if text is not None:
            parsed, value = grade_typed(text, gold, self.variant)
            metric = typed_metric(text, gold)
        return grade(region, parsed, value, metric)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """The metric per problem type and source."""
        return mean_by_each(("type", "source"), values, metas)
