"""OVDEval: open-vocabulary detection where similar but absent labels are asked for too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.corpus.json_rows import is_object
from mmrl.records import media_source
from mmrl.rewards.boxes import xywh_box
from mmrl.rewards.detection import (
    BoxListFormat,
    GoldBoxes,
    coco_matches,
    corpus_precision,
    image_precision,
    od_length,
    suppress,
    to_source_all,
)
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.marks import marks
from mmrl.task import RewardPart
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

FORM = BoxListFormat("bbox_2d", "label", "confidence", "None", scores="optional")


@dataclass(frozen=True)
class Task(contract.Task):
    """odLength as reward, AP after class-blind suppression (NMS-AP) as metric.

    `nms` None is plain AP, which pays for one box under several labels.
    """

    nms: float | None = 0.5
    think: Think = "required"

    name: ClassVar[str] = "ovdeval"
    summary: ClassVar[str] = "box what a label describes among hard negatives, NMS-AP"
    parts: ClassVar[dict[str, RewardPart]] = {
        "boxes": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0),
    }
    metric: ClassVar[str] = "NMS-AP"
    keeps: ClassVar[contract.Keeps] = "turns"

    def own_records(self, path: Path) -> Iterator[Record] | None:
        """Read a public per-aspect json file: a record for each image."""
        if path.suffix == ".json" and is_object(path):
            data = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(data, dict):
                return _images(data, path)
        return None

    def sample(self, record: Record) -> Sample:
        """Ask for the boxes of all labels, `text` that are there and `neg_text` that are not."""
        fields = record.fields
        positives = dict.fromkeys(map(str, fields["text"]))
        negatives = dict.fromkeys(map(str, fields["neg_text"]))
        both = positives.keys() & negatives.keys()
        if both:
            raise ValueError(f"labels both present and absent: {sorted(both)}")
        # Sorted, so that the order of the labels does not tell which are present.
        asked = tuple(sorted([*positives, *negatives]))
        rows = fields["annotations"]
        gold = GoldBoxes(
            tuple(xywh_box(row["bbox"]) for row in rows),
            tuple(str(row["category"]) for row in rows),
            asked,
            crowd=tuple(bool(row.get("iscrowd", 0)) for row in rows),
        )
        if set(gold.labels) & negatives.keys():
            raise ValueError("an annotation carries a label of neg_text")
        question = (
            f"Find every object that one of these labels describes: {json.dumps(asked)}. "
            f"Some labels may describe nothing. {self._grammar().instruction()} "
            f"{FORM.instruction()}"
        )
        image = MediaRef("image", media_source(record, fields["image"]))
        meta = {"golds": gold.counts(), "aspect": str(fields.get("aspect", "all"))}
        return Sample(record.id, self.name, (image, Text(question)), gold, meta=meta)

    def score(self, gold: GoldBoxes, answer: Answer) -> Score:
        """Match the boxes with the gold ones in source pixels."""
        region = self._grammar().parse(answer)
        parsed = region.answer.then(lambda text: FORM.read(text, gold.asked))
        frame = answer.frames[0]
        boxes = gold.in_source(frame)
        if parsed.value is None:
            nothing = dict.fromkeys(self.parts, 0.0)
            known = marks(boxes, (), gold.labels)
            return Score(nothing, 0.0, parsed.status, parsed.reason, marks=known)
        found = to_source_all(parsed.value, answer.space, frame)
        kept = found if self.nms is None else suppress(found, self.nms)
        matches = coco_matches(boxes, gold.labels, gold.crowd, kept)
        wanted = [i for i, crowd in enumerate(gold.crowd) if not crowd]
        reward = od_length([boxes[i] for i in wanted], [gold.labels[i] for i in wanted], found)
        return Score(
            {"boxes": reward, "format": float(region.well_formed)},
            metric=image_precision(matches, gold.counts()).ap,
            evidence={"matches": matches},
            marks=marks(boxes, found, gold.labels),
        )

    def asked(self, sample: Sample) -> str:
        """The labels to look for; what is said around them is the same everywhere."""
        return " ".join(sample.gold.asked)

    def aggregate(self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
        """Mean over aspects of each one's corpus AP."""
        aspects = self.breakdown(values, metas)
        return sum(aspects.values()) / len(aspects)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Corpus AP of each aspect."""
        aspects: dict[str, list[Mapping[str, Any]]] = {}
        for meta in metas:
            aspects.setdefault(meta["aspect"], []).append(meta)
        return {name: corpus_precision(aspects[name]).ap for name in sorted(aspects)}

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The gold boxes with their labels."""
        said = sample.gold.as_answer(answer.frames[0], answer.space)
        return self._grammar().write(FORM.write(said, answer.space))

    def _grammar(self) -> TagAnswer:
        return TagAnswer(self.think, max_region_characters=16_384)


def _images(data: Mapping[str, Any], path: Path) -> Iterator[Record]:
    names = {category["id"]: category["name"] for category in data["categories"]}
    rows: dict[Any, list[dict[str, Any]]] = {}
    for row in data["annotations"]:
        rows.setdefault(row["image_id"], []).append({**row, "category": names[row["category_id"]]})
    for image in data["images"]:
        fields = {
            "image": image["file_name"],
            "text": image["text"],
            "neg_text": image["neg_text"],
            "annotations": rows.get(image["id"], []),
            "aspect": path.stem,
        }
        yield Record(f"{path.stem}-{image['id']}", fields, path.parent)
