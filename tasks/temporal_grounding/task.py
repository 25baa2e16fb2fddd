"""Temporal grounding (Charades-STA, ActivityNet captions): when something happens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.corpus.json_rows import is_object
from mmrl.records import media_source
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.intervals import (
    Interval,
    from_source,
    gold_interval,
    iou,
    parse_interval,
    to_source,
    write_interval,
)
from mmrl.rewards.marks import marks
from mmrl.task import RewardPart
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

THRESHOLDS = (0.3, 0.5, 0.7)
FORM = "Write it as 'start to end' in seconds from the beginning of the video, such as '1.5 to 4'."


@dataclass(frozen=True)
class Task(contract.Task):
    """Temporal IoU with the gold interval as reward and, averaged, as metric.

    Reads flat records, and the `{video: {duration, timestamps, sentences}}` files of both data
    sets, for which `video_path` says where a video lies.
    """

    think: Think = "required"
    video_path: str = "{video}.mp4"

    name: ClassVar[str] = "temporal_grounding"
    summary: ClassVar[str] = "when in a video something happens, temporal IoU as reward"
    parts: ClassVar[dict[str, RewardPart]] = {
        "iou": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0),
    }
    metric: ClassVar[str] = "mIoU"

    def own_records(self, path: Path) -> Iterator[Record] | None:
        """Read a file keyed by video: a record for each sentence."""
        if path.suffix == ".json" and is_object(path):
            data = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(data, dict):
                return self._sentences(data, path.parent)
        return None

    def sample(self, record: Record) -> Sample:
        """Ask when a record's sentence happens; `clip` shows only a part of the video."""
        fields = record.fields
        gold = gold_interval(fields["timestamp"])
        duration = fields.get("duration")
        if duration is not None and gold.start >= float(duration):
            raise ValueError(f"gold {gold} starts after the video's {duration} s")
        sentence = str(fields["sentence"]).strip()
        if not sentence:
            raise ValueError("empty sentence")
        options = {}
        if "clip" in fields:
            clip = gold_interval(fields["clip"])
            options = {"start": clip.start, "end": clip.end}
        grammar = TagAnswer(self.think)
        question = f'When does this happen in the video: "{sentence}"? {FORM}'
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef("video", media_source(record, fields["video"]), options),
                Text(f"{question}\n{grammar.instruction()}"),
            ),
            gold=gold,
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Map the one interval to source seconds and take its IoU."""
        region = TagAnswer(self.think).parse(answer)
        parsed = region.answer.then(parse_interval)
        found = [] if parsed.value is None else [to_source(parsed.value, answer.frames[0])]
        overlap = sum(iou(interval, Interval(*gold)) for interval in found)
        formed = region.well_formed and parsed.value is not None
        parts = {"iou": overlap, "format": float(formed)}
        known = marks([Interval(*gold)], found)
        return Score(parts, overlap, parsed.status, parsed.reason, marks=known)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """R@1 at each IoU threshold, bounds included."""
        return {f"R1@{t:g}": sum(v >= t for v in values) / len(values) for t in THRESHOLDS}

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The gold interval as the model counts seconds."""
        seen = from_source(Interval(*sample.gold), answer.frames[0])
        return TagAnswer(self.think).write(write_interval(seen))

    def _sentences(self, data: Mapping[str, Any], root: Path) -> Iterator[Record]:
        for video, entry in data.items():
            pairs = zip(entry["timestamps"], entry["sentences"], strict=True)
            for i, (timestamp, sentence) in enumerate(pairs):
                fields = {
                    "video": self.video_path.format(video=video),
                    "duration": entry["duration"],
                    "timestamp": timestamp,
                    "sentence": sentence,
                }
                yield Record(f"{video}-{i}", fields, root)
