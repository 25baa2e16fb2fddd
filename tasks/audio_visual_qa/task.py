"""Audio-visual questions (EchoInk's AVQA-R1): a picture and a sound, graded by problem type."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, grade, tagged_solution
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.intervals import Interval, parse_intervals, summed_iou, union_iou
from mmrl.rewards.intervals import to_source as to_source_seconds
from mmrl.rewards.parsed import Parsed
from mmrl.rewards.typed import TypedGold, grade_typed, typed_gold, typed_metric
from mmrl.task import RewardPart, mean_by_each
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

TEMPORAL = "temporal retrieval"
HINT = "The answer is a list of [start, end] in seconds, separated by semicolons."

Spans = tuple[Interval, ...]


@dataclass(frozen=True)
class Task(contract.Task):
    """Rules by problem type as in `video_mix`, and the overlap of spans of the sound.

    `code` compares decimal points and adds up the overlap of each span, as published.
    """

    think: Think = "required"
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "audio_visual_qa"
    summary: ClassVar[str] = "questions about a picture and a sound, by problem type"
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "noise"

    @property
    def parts(self) -> Mapping[str, RewardPart]:  # type: ignore[override]
        """As published, each repetition of a span is paid for again."""
        high = 1.0 if self.variant == "strict" else math.inf
        return {**ACCURACY_AND_FORMAT, "accuracy": RewardPart(0.0, high)}

    def sample(self, record: Record) -> Sample:
        """Ask a record: `problem`, `problem_type`, `options`, `solution`, `path` {image, audio}."""
        fields = record.fields
        gold: TypedGold | Spans
        if fields["problem_type"] == TEMPORAL:
            gold, written = _spans(fields)
            kind, question, hint = TEMPORAL, str(fields["problem"]), HINT
        else:
            gold = typed_gold(fields)
            kind, written, hint = gold.kind, gold.answer, gold.hint
            question = f"{fields['problem']}{gold.question_tail}"
        grammar = TagAnswer(self.think)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef("image", media_source(record, fields["path"]["image"])),
                MediaRef("audio", media_source(record, fields["path"]["audio"])),
                Text(f"{question}\n{grammar.instruction()} {hint}"),
            ),
            gold=gold,
            target=grammar.write(written),
            meta={"type": kind, "source": fields.get("data_source")},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region by the record's own type."""
        region = TagAnswer(self.think).parse(answer)
        text = region.answer.value
        parsed: Parsed[Any] = region.answer
        value = metric = 0.0
        if text is not None and isinstance(gold, TypedGold):
            parsed, value = grade_typed(text, gold, self.variant)
            metric = typed_metric(text, gold)
        elif text is not None:
            parsed = parse_intervals(text)
            found = [to_source_seconds(span, answer.frames[1]) for span in parsed.value or ()]
            metric = union_iou(found, gold)
            value = metric if self.variant == "strict" else summed_iou(found, gold)
        return grade(region, parsed, value, metric)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """The metric per problem type and source."""
        return mean_by_each(("type", "source"), values, metas)


def _spans(fields: Mapping[str, Any]) -> tuple[Spans, str]:
    written = tagged_solution(fields["solution"])
    spans = parse_intervals(written)
    if spans.value is None:
        raise ValueError(f"gold spans {written!r:.60}: {spans.reason}")
    return spans.value, written
