"""Referring expressions (RefCOCO/+/g): the one box that an expression describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.boxes import (
    Box,
    GoldSpace,
    from_source,
    gold_box,
    gold_to_source,
    iou,
    to_source,
    xywh_box,
)
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.marks import marks
from mmrl.rewards.native_forms import Form, hint_of, parse_native_box, space_of, write_form
from mmrl.task import RewardPart, mean, mean_by
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

QUESTION = "Give the bounding box [x1, y1, x2, y2] of the region that this describes: "


class Gold(NamedTuple):
    """The box to find and the space its data set states it in."""

    box: Box
    space: GoldSpace


@dataclass(frozen=True)
class Task(contract.Task):
    """IoU in source pixels as reward; the metric counts boxes that reach `threshold`.

    `layout` says what a column `bbox` holds: COCO's xywh pixels, or xyxy in 0-1 (lmms-eval).
    `inclusive` counts an IoU of exactly the threshold (lmms-eval; VLM-R1 does not). `reward`
    binary pays 0 or 1 at the threshold instead of the IoU. `form` is how the box is written
    (`rewards/native_forms.py`): `own` takes whatever counts in the model's own space.
    """

    layout: Literal["coco", "lmms_eval"] = "coco"
    reward: Literal["iou", "binary"] = "iou"
    threshold: float = 0.5
    inclusive: bool = True
    think: Think = "required"
    form: Form = "own"

    name: ClassVar[str] = "referring_box"
    summary: ClassVar[str] = "box the region that an expression describes, IoU as reward"
    parts: ClassVar[dict[str, RewardPart]] = {
        "iou": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0),
    }
    metric: ClassVar[str] = "Acc@IoU"
    keeps: ClassVar[contract.Keeps] = "turns"

    def sample(self, record: Record) -> Sample:
        """Ask for the box of a record's expression; `solution` is xyxy in source pixels."""
        fields = record.fields
        expression = str(fields.get("sentence") or fields.get("normal_caption") or "").strip()
        if not expression:
            raise ValueError("no expression: give 'sentence' or 'normal_caption'")
        asked = f"{QUESTION}{expression}\n{TagAnswer(self.think).instruction()}"
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef("image", media_source(record, fields["image"])),
                Text(" ".join(filter(None, (asked, hint_of(self.form, "box"))))),
            ),
            gold=self._gold(fields),
            meta={"split": str(fields.get("split", "all"))},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Map the one box to source pixels and compare it with the gold one."""
        region = TagAnswer(self.think).parse(answer)
        parsed = region.answer.then(lambda text: parse_native_box(text, self.form))
        frame = answer.frames[0]
        wanted = gold_to_source(Box(*gold[0]), gold[1], frame)
        space = space_of(self.form, answer.space)
        found = [] if parsed.value is None else [to_source(parsed.value, space, frame)]
        overlap = sum(iou(box, wanted) for box in found)
        hit = float(overlap >= self.threshold if self.inclusive else overlap > self.threshold)
        formed = region.well_formed and parsed.value is not None
        parts = {"iou": hit if self.reward == "binary" else overlap, "format": float(formed)}
        return Score(
            parts,
            hit,
            parsed.status,
            parsed.reason,
            evidence={"iou": overlap},
            marks=marks([wanted], found),
        )

    def asked(self, sample: Sample) -> str:
        """The expression alone."""
        return super().asked(sample).partition(QUESTION)[2].partition("\n")[0]

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy per split, and the mean IoU."""
        overlaps = [meta.get("iou", 0.0) for meta in metas]
        return {**mean_by("split", values, metas), "mIoU": mean(overlaps, metas)}

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The gold box in the model's own space."""
        frame = answer.frames[0]
        gold = Gold(*sample.gold)
        space = space_of(self.form, answer.space)
        seen = from_source(gold_to_source(gold.box, gold.space, frame), space, frame)
        return TagAnswer(self.think).write(write_form(seen, self.form, space))

    def _gold(self, fields: Mapping[str, Any]) -> Gold:
        if "solution" in fields:
            return Gold(gold_box(fields["solution"]), "pixels")
        if self.layout == "lmms_eval":
            return Gold(gold_box(fields["bbox"]), "unit")
        return Gold(xywh_box(fields["bbox"]), "pixels")
