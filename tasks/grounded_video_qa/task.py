"""Grounded video questions (NExT-GQA): a letter, and the moments that show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.choices import Choice, choice_of, format_options
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.intervals import (
    Interval,
    from_source,
    gold_interval,
    overlap_seconds,
    parse_intervals,
    to_source,
    total_seconds,
    union_iou,
    write_intervals,
)
from mmrl.rewards.marks import marks
from mmrl.rewards.parsed import Parsed, malformed
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

GLUE = TagAnswer("none", tag="glue")
FORM = (
    "After it, write between <glue> </glue> tags when the video shows this, "
    "as a list of (start, end) in seconds from its beginning."
)
COVERED = 0.5


@dataclass(frozen=True, slots=True)
class Gold:
    """The right choice and the moments, in seconds of the source."""

    choice: Choice
    moments: tuple[Interval, ...]


@dataclass(frozen=True)
class Task(contract.Task):
    """Letter equality and, by itself, the overlap of the union of moments.

    `code` refuses a space after the bracket that opens the list, as VideoChat-R1's pattern does.
    """

    think: Think = "required"
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "grounded_video_qa"
    summary: ClassVar[str] = "multiple choice about a video, with the moments that show it"
    parts: ClassVar[Mapping[str, RewardPart]] = {
        "accuracy": RewardPart(0.0, 1.0),
        "iou": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0),
    }
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `video`, `question`, `options`, `answer` `(C)`, `glue` [[start, end]]."""
        fields = record.fields
        choice = choice_of(fields["options"], str(fields["answer"]))
        moments = tuple(gold_interval(pair) for pair in fields["glue"])
        if not moments:
            raise ValueError("no moment in 'glue'")
        question = f"{fields['question']}\n{format_options(choice.options)}"
        grammar = TagAnswer(self.think)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef("video", media_source(record, fields["video"])),
                Text(f"{question}\n{grammar.instruction()} {choice.instruction} {FORM}"),
            ),
            gold=Gold(choice, moments),
            meta={"type": str(fields.get("type", "all"))},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the letter and the moments, each by itself."""
        choice, moments = gold.choice, gold.moments
        read = TagAnswer(self.think).parse(answer).answer
        letter = read.then(choice.read)
        glue = TagAnswer(self.think, tag="glue").parse(answer).answer.then(self._read_glue)
        found = [to_source(moment, answer.frames[0]) for moment in glue.value or ()]
        shared = overlap_seconds(found, moments)
        precision = shared / total_seconds(found) if found else 0.0
        right = letter.value == choice.letter
        readable = letter.value is not None and glue.value is not None
        formed = readable and self._in_order(answer)
        worse = letter if letter.value is None else glue
        return Score(
            {"accuracy": float(right), "iou": union_iou(found, moments), "format": float(formed)},
            metric=float(right),
            status=worse.status,
            reason=worse.reason,
            evidence={
                "iou": union_iou(found, moments),
                "iop": precision,
                "grounded": float(right and precision >= COVERED),
            },
            marks=marks(moments, found),
        )

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """mIoU, mIoP, Acc@GQA (right, and half of what was named lies in the gold), by type."""
        names = {"iou": "mIoU", "iop": "mIoP", "grounded": "Acc@GQA"}
        means = {
            name: sum(meta.get(key, 0.0) for meta in metas) / len(metas)
            for key, name in names.items()
        }
        return {**means, **mean_by("type", values, metas)}

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The letter, and the gold moments as the model counts seconds."""
        seen = [from_source(moment, answer.frames[0]) for moment in sample.gold.moments]
        letter = TagAnswer(self.think).write(sample.gold.choice.letter)
        return f"{letter}\n{GLUE.write(write_intervals(seen))}"

    def _in_order(self, answer: Answer) -> bool:
        """Whether the completion is thought, answer and glue, and nothing else."""
        before, closing, after = answer.text.rpartition("</answer>")
        head = TagAnswer(self.think).parse(replace(answer, text=before + closing))
        return head.well_formed and GLUE.parse(replace(answer, text=after)).well_formed

    def _read_glue(self, text: str) -> Parsed[tuple[Interval, ...]]:
        if self.variant == "code" and text.startswith("[ "):
            return malformed("a space after the opening bracket")
        return parse_intervals(text)
