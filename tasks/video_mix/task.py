"""A mixture of video and image questions (Video-R1, SpaceR), each graded by its own type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, grade
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.parsed import Parsed
from mmrl.rewards.typed import grade_typed, typed_gold, typed_metric
from mmrl.task import RewardPart, mean_by_each
from mmrl.types import Answer, MediaKind, MediaRef, Record, Sample, Score, Text

KINDS: Mapping[str, MediaKind] = {"video": "video", "image": "image"}


@dataclass(frozen=True)
class Task(contract.Task):
    """Video-R1's rules by problem type; `code` compares decimal points as published."""

    think: Think = "required"
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "video_mix"
    summary: ClassVar[str] = "video and image questions of mixed types, each by its own verifier"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `problem`, `data_type`, `problem_type`, `options`, `solution`, `path`."""
        fields = record.fields
        gold = typed_gold(fields)
        if fields["data_type"] not in KINDS:
            raise ValueError(f"data_type {fields['data_type']!r:.40} is none of {list(KINDS)}")
        medium = MediaRef(KINDS[fields["data_type"]], media_source(record, fields["path"]))
        grammar = TagAnswer(self.think)
        question = f"{fields['problem']}{gold.question_tail}"
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                medium,
                Text(f"{question}\n{grammar.instruction()} {gold.hint}"),
            ),
            gold=gold,
            target=grammar.write(gold.answer),
            meta={
                "type": gold.kind,
                "medium": fields["data_type"],
                "source": fields.get("data_source"),
            },
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region by the record's own type."""
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
        """The metric per problem type, kind of medium and source."""
        return mean_by_each(("type", "medium", "source"), values, metas)
