"""Where is the handwritten digit: one box, rewarded by its overlap with the true one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.boxes import Box, from_source, iou, to_source
from mmrl.rewards.grammar import TagAnswer
from mmrl.rewards.marks import marks
from mmrl.rewards.native_forms import parse_native_box
from mmrl.task import RewardPart
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

GRAMMAR = TagAnswer(think="none")
QUESTION = (
    f"Where is the handwritten digit? {GRAMMAR.instruction()} Give its box as [x1, y1, x2, y2]."
)


@dataclass(frozen=True)
class Task(contract.Task):
    """IoU with the gold box in source pixels; the metric counts boxes over `threshold`."""

    threshold: float = 0.5

    name: ClassVar[str] = "digit_box"
    summary: ClassVar[str] = "box the handwritten digit on a canvas, overlap as reward"
    parts: ClassVar[dict[str, RewardPart]] = {"iou": RewardPart(0.0, 1.0)}
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "turns"

    def sample(self, record: Record) -> Sample:
        """Ask a record of the `digits` recipe: `image` and `box`, xyxy in source pixels."""
        gold = Box(*map(float, record.fields["box"]))
        if not gold.area > 0:
            raise ValueError(f"gold box {gold} is empty")
        return Sample(
            id=record.id,
            task=self.name,
            parts=(MediaRef("image", media_source(record, record.fields["image"])), Text(QUESTION)),
            gold=gold,
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Map the one box from what the model sees to the source, then take its IoU."""
        parsed = GRAMMAR.parse(answer).answer.then(parse_native_box)
        frame, wanted = answer.frames[0], Box(*gold)
        found = [] if parsed.value is None else [to_source(parsed.value, answer.space, frame)]
        overlap = sum(iou(box, wanted) for box in found)
        return Score(
            {"iou": overlap},
            metric=float(overlap >= self.threshold),
            status=parsed.status,
            reason=parsed.reason,
            marks=marks([wanted], found),
        )

    def asked(self, sample: Sample) -> str:
        """Nothing that hangs on sides: the same question everywhere."""
        return ""

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The gold box in whole numbers of the model's own space."""
        seen = from_source(Box(*sample.gold), answer.space, answer.frames[0])
        corners = ", ".join(str(round(corner)) for corner in seen)
        return GRAMMAR.write(f"[{corners}]")
