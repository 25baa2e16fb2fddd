"""Object tracking (GOT-10k in VideoChat-R1's form): one box for each of 8 frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.frame import Frame
from mmrl.records import media_source
from mmrl.rewards.boxes import Box, from_source, gold_box, gold_to_source, to_source, write_box
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.marks import track_marks
from mmrl.rewards.tracks import overlaps, parse_track, success
from mmrl.task import RewardPart
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text


@dataclass(frozen=True)
class Task(contract.Task):
    """Mean overlap over exactly `boxes` frames, the number of frames that is also shown."""

    boxes: int = 8
    think: Think = "required"

    name: ClassVar[str] = "tracking"
    summary: ClassVar[str] = "follow an object through the frames of a video, mean overlap"
    parts: ClassVar[dict[str, RewardPart]] = {
        "overlap": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0),
    }
    metric: ClassVar[str] = "AO"

    def sample(self, record: Record) -> Sample:
        """Ask to follow `object`; `gt` has a box xyxy in 0-1 of the source for each frame."""
        fields = record.fields
        gold = tuple(gold_box(corners) for corners in fields["gt"])
        if len(gold) != self.boxes:
            raise ValueError(f"{len(gold)} gold boxes, the task asks for {self.boxes}")
        if any(min(box) < 0 or max(box) > 1 for box in gold):
            raise ValueError("gold boxes must lie in 0-1")
        grammar = TagAnswer(self.think)
        question = (
            f"Follow this object through the {self.boxes} frames of the video: {fields['object']}. "
            f"The answer is a list of exactly {self.boxes} boxes [x1, y1, x2, y2], "
            "one for each frame in order."
        )
        video = media_source(record, fields["path"])
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef("video", video, {"frames": self.boxes, "min_frames": 1}),
                Text(f"{question}\n{grammar.instruction()}"),
            ),
            gold=gold,
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Compare the tracks in source pixels; frames that were not all shown are an error."""
        frame = answer.frames[0]
        if len(frame.seconds) != self.boxes:
            raise ValueError(f"{len(frame.seconds)} frames were shown, gold has {self.boxes} boxes")
        region = TagAnswer(self.think).parse(answer)
        parsed = region.answer.then(lambda text: parse_track(text, self.boxes))
        track = [to_source(box, answer.space, frame) for box in parsed.value or ()]
        wanted = _in_source(gold, frame)
        values = overlaps(wanted, track) if track else [0.0]
        mean = sum(values) / len(values)
        formed = region.well_formed and parsed.value is not None
        return Score(
            {"overlap": mean, "format": float(formed)},
            metric=mean,
            status=parsed.status,
            reason=parsed.reason,
            evidence={
                "success": success(values),
                "half": sum(v > 0.5 for v in values) / len(values),
            },
            marks=track_marks(wanted, track),
        )

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Area under the success plot, and the share of frames over an overlap of 0.5."""
        names = {"success": "AUC", "half": "SR0.5"}
        return {
            name: sum(meta.get(key, 0.0) for meta in metas) / len(metas)
            for key, name in names.items()
        }

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The gold track in the model's own space."""
        frame = answer.frames[0]
        seen = [from_source(box, answer.space, frame) for box in _in_source(sample.gold, frame)]
        boxes = ", ".join(write_box(box, answer.space) for box in seen)
        return TagAnswer(self.think).write(f"[{boxes}]")


def _in_source(gold: Any, frame: Frame) -> list[Box]:
    return [gold_to_source(Box(*box), "unit", frame) for box in gold]
