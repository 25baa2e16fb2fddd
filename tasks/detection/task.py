"""Object detection: every box of the asked categories, COCO's average precision."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.boxes import Box, gold_box, xywh_box
from mmrl.rewards.detection import (
    BoxListFormat,
    Detection,
    GoldBoxes,
    coco_matches,
    corpus_precision,
    image_precision,
    od_length,
    to_source_all,
)
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.json_text import parse_json
from mmrl.rewards.marks import marks
from mmrl.task import RewardPart
from mmrl.tasks.detection.reward import Variant, confidence_reward, overlap_reward, weighted_sum
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

FORMATS = {
    "visual_rft": BoxListFormat("Position", "", "Confidence", "No Objects"),
    "vlm_r1": BoxListFormat("bbox_2d", "label", "confidence", "None", scores="optional"),
}
_CATEGORY = re.compile(r"category '([^']{1,100})'")
_POSITION = re.compile(r"'Position':\s*\[([-0-9., ]{1,80})\]")
_ASKED = re.compile(r"\[[^\[\]]{1,4000}\]")


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads Visual-RFT rows, VLM-R1 conversations and COCO-like records.

    `reward` chooses what the part `boxes` is; `form` how boxes are written.
    """

    form: Literal["visual_rft", "vlm_r1"] = "visual_rft"
    reward: Literal["iou", "odlength", "map", "map50", "weighted"] = "iou"
    variant: Variant = "strict"
    think: Think = "required"

    name: ClassVar[str] = "detection"
    summary: ClassVar[str] = "box every object of the asked categories, COCO average precision"
    parts: ClassVar[dict[str, RewardPart]] = {
        "boxes": RewardPart(0.0, 1.0),
        "confidence": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0),
    }
    metric: ClassVar[str] = "AP"
    keeps: ClassVar[contract.Keeps] = "turns"

    def sample(self, record: Record) -> Sample:
        """Ask for every box of the record's categories; one category only in Visual-RFT's form."""
        gold = _read_gold(record.fields)
        if self.form == "visual_rft" and len(gold.asked) > 1:
            raise ValueError(f"{len(gold.asked)} categories in one prompt need form: vlm_r1")
        names = ", ".join(f'"{label}"' for label in gold.asked)
        form = FORMATS[self.form]
        question = (
            f"Detect every object of these categories in the picture: {names}. "
            f"{self._grammar().instruction()} {form.instruction()}"
        )
        image = MediaRef("image", media_source(record, record.fields["image"]))
        return Sample(
            id=record.id,
            task=self.name,
            parts=(image, Text(question)),
            gold=gold,
            meta={"golds": gold.counts()},
        )

    def score(self, gold: GoldBoxes, answer: Answer) -> Score:
        """Match the boxes with the gold ones in source pixels."""
        region = self._grammar().parse(answer)
        parsed = region.answer.then(lambda text: FORMATS[self.form].read(text, gold.asked))
        frame = answer.frames[0]
        boxes = gold.in_source(frame)
        if parsed.value is None:
            nothing = dict.fromkeys(self.parts, 0.0)
            known = marks(boxes, (), gold.labels)
            return Score(nothing, 0.0, parsed.status, parsed.reason, marks=known)
        found = to_source_all(parsed.value, answer.space, frame)
        matches = coco_matches(boxes, gold.labels, gold.crowd, found)
        wanted = [i for i, crowd in enumerate(gold.crowd) if not crowd]
        targets = [boxes[i] for i in wanted]
        return Score(
            {
                "boxes": self._reward(targets, [gold.labels[i] for i in wanted], found),
                "confidence": confidence_reward(targets, found, self.variant),
                "format": float(region.well_formed),
            },
            metric=image_precision(matches, gold.counts()).ap,
            evidence={"matches": matches},
            marks=marks(boxes, found, gold.labels),
        )

    def asked(self, sample: Sample) -> str:
        """The labels to look for; what is said around them is the same everywhere."""
        return " ".join(sample.gold.asked)

    def aggregate(self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
        """COCO's AP at 0.50:0.95 over all records."""
        return corpus_precision(metas).ap

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """AP at the single thresholds that are usually quoted."""
        found = corpus_precision(metas)
        return {"AP50": found.ap50, "AP75": found.ap75}

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The gold boxes, sure of each."""
        said = [
            d._replace(score=1.0) for d in sample.gold.as_answer(answer.frames[0], answer.space)
        ]
        return self._grammar().write(FORMATS[self.form].write(said, answer.space))

    def _grammar(self) -> TagAnswer:
        return TagAnswer(self.think, max_region_characters=16_384)

    def _reward(
        self, golds: Sequence[Box], labels: Sequence[str], found: Sequence[Detection]
    ) -> float:
        match self.reward:
            case "iou":
                return overlap_reward(golds, found, self.variant)
            case "weighted":
                return weighted_sum(golds, labels, found, self.variant)
            case "odlength":
                return od_length(golds, labels, found)
            case "map":
                return od_length(golds, labels, found, length_penalty=False)
            case "map50":
                return od_length(golds, labels, found, at="50", length_penalty=False)


def _read_gold(fields: Mapping[str, Any]) -> GoldBoxes:
    if "conversations" in fields:
        return _read_conversation(fields["conversations"])
    return _read_annotations(fields) if "annotations" in fields else _read_solution(fields)


def _read_solution(fields: Mapping[str, Any]) -> GoldBoxes:
    """Visual-RFT: positions in 0-1000 within the solution text, the category in the question."""
    category = _CATEGORY.search(str(fields["problem"]))
    if category is None:
        raise ValueError("the problem does not name a category '...'")
    solution = str(fields["solution"])
    positions = _POSITION.findall(solution)
    if bool(positions) == ("No Objects" in solution) or len(positions) != solution.count("Posit"):
        raise ValueError(f"solution is neither boxes nor 'No Objects': {solution:.80}")
    boxes = tuple(gold_box([float(x) for x in position.split(",")]) for position in positions)
    return GoldBoxes(boxes, (category[1],) * len(boxes), (category[1],), "thousand")


def _read_conversation(turns: Any) -> GoldBoxes:
    """VLM-R1: the answer is a fenced JSON list in source pixels, or "None"."""
    question, solution = str(turns[0]["value"]), str(turns[1]["value"]).strip()
    items: list[Any] = []
    if solution.strip("` \n").removeprefix("json").strip() != "None":
        parsed = parse_json(solution)
        if not isinstance(parsed.value, list) or not parsed.value:
            raise ValueError(f"gold is not a list of boxes: {parsed.reason}")
        items = parsed.value
    labels = tuple(str(item["label"]) for item in items)
    listed = _ASKED.search(question)
    asked = parse_json(listed[0].replace("'", '"')).value if listed else None
    known = tuple(map(str, asked)) if isinstance(asked, list) else tuple(dict.fromkeys(labels))
    return GoldBoxes(tuple(gold_box(item["bbox_2d"]) for item in items), labels, known)


def _read_annotations(fields: Mapping[str, Any]) -> GoldBoxes:
    """COCO-like: `categories` asked, `annotations` with xywh pixels and a `category` name."""
    rows = fields["annotations"]
    return GoldBoxes(
        tuple(xywh_box(row["bbox"]) for row in rows),
        tuple(str(row["category"]) for row in rows),
        tuple(map(str, fields["categories"])),
        crowd=tuple(bool(row.get("iscrowd", 0)) for row in rows),
    )
