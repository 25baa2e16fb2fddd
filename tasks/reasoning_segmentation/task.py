"""Reasoning segmentation: box and points of what a question implies, masks for the metric."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from mmrl import task as contract
from mmrl.frame import Frame, Space
from mmrl.records import media_source
from mmrl.rewards import masks
from mmrl.rewards.assignment import assign
from mmrl.rewards.boxes import Box, box_of, from_source, iou, to_source
from mmrl.rewards.custom import load_callable
from mmrl.rewards.grammar import TagAnswer
from mmrl.rewards.json_text import parse_json
from mmrl.rewards.marks import marks
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.points import Point, distance, in_box, point_of
from mmrl.rewards.points import from_source as point_from_source
from mmrl.rewards.points import to_source as point_to_source
from mmrl.task import RewardPart
from mmrl.tasks.reasoning_segmentation.records import (
    Gold,
    Target,
    free_words,
    read_folder,
    read_gold,
)
from mmrl.types import Answer, Bools, MediaRef, Record, Sample, Score, Text

GRAMMAR = TagAnswer("required")
POINT_PIXELS = {"seg_zero": 100.0, "vision_reasoner": 30.0}
CORNER_PIXELS = 10.0
OVERLAP = 0.5
WORDS_TO_NOTHING = 500.0
MAX_OBJECTS = 32


@dataclass(frozen=True)
class Task(contract.Task):
    """Five binary terms of Seg-Zero; with `budget` each is scaled by PixelThink's length factor.

    `form` vision_reasoner asks for a list of objects, which are assigned to the gold ones.
    `segmenter` names a function f(picture, boxes, points, size) -> bool mask [H, W] in source
    pixels, given the answer's boxes and points; without one the boxes themselves are the mask.
    """

    form: Literal["seg_zero", "vision_reasoner"] = "seg_zero"
    budget: bool = False
    segmenter: str | None = None

    name: ClassVar[str] = "reasoning_segmentation"
    summary: ClassVar[str] = "box and points of what a question implies, mask IoU as metric"
    parts: ClassVar[dict[str, RewardPart]] = {
        "format": RewardPart(0.0, 1.0),
        "json": RewardPart(0.0, 1.0),
        "overlap": RewardPart(0.0, 1.0),
        "corners": RewardPart(0.0, 1.0),
        "points": RewardPart(0.0, 1.0),
    }
    metric: ClassVar[str] = "gIoU"
    keeps: ClassVar[contract.Keeps] = "turns"

    def own_records(self, path: Path) -> Iterator[Record] | None:
        """Read a ReasonSeg folder of json files and pictures."""
        paired = any(file.with_suffix(".jpg").is_file() for file in path.glob("*.json"))
        return read_folder(path) if paired else None

    def sample(self, record: Record) -> Sample:
        """Ask a record's `problem` or `text`."""
        fields = record.fields
        gold = read_gold(record, self._points)
        if self.budget:
            gold = replace(gold, budget=free_words(fields))
        question = str(fields.get("problem") or fields.get("text") or "").strip()
        question = question.removeprefix("<image>").strip()
        if not question:
            raise ValueError("no question: give 'problem' or 'text'")
        asked = f'Find in the picture: "{question}"\n{GRAMMAR.instruction()} {self._instruction()}'
        area = gold.mask.area if gold.mask else round(sum(t.box.area for t in gold.targets))
        return Sample(
            id=record.id,
            task=self.name,
            parts=(MediaRef("image", media_source(record, fields["image"])), Text(asked)),
            gold=gold,
            meta={"intersection": 0, "union": area, **_difficulty(fields)},
        )

    def score(self, gold: Gold, answer: Answer) -> Score:
        """Compare boxes and points in source pixels; the metric compares masks."""
        region = GRAMMAR.parse(answer)
        parsed = region.answer.then(self._read)
        frame = answer.frames[0]
        said = parsed.value or ()
        found = tuple(_map(target, answer.space, frame) for target in said)
        overlap, corners, points = self._terms(gold.targets, found)
        factor = _length_factor(answer.text, gold.budget)
        shared, union = self._pixels(gold, found, frame.source_size)
        return Score(
            {
                "format": factor * (region.well_formed and bool(found)),
                "json": factor * bool(found),
                "overlap": factor * overlap,
                "corners": factor * corners,
                "points": factor * points,
            },
            metric=masks.iou(shared, union),
            status=parsed.status,
            reason=parsed.reason,
            evidence={"intersection": shared, "union": union},
            marks=marks(_places(gold.targets), _places(found)),
        )

    def asked(self, sample: Sample) -> str:
        """The question without what is said around it."""
        return super().asked(sample).partition('"')[2].rpartition('"\n')[0]

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """cIoU: all intersections over all unions."""
        shared, union = (sum(meta[key] for meta in metas) for key in ("intersection", "union"))
        return {"cIoU": masks.iou(shared, union)}

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The gold boxes and points in the model's own space."""
        frame, space = answer.frames[0], answer.space
        seen = [
            Target(
                from_source(target.box, space, frame),
                tuple(point_from_source(point, space, frame) for point in target.points),
            )
            for target in sample.gold.targets
        ]
        return GRAMMAR.write(self._write(seen))

    @property
    def _points(self) -> int:
        return 2 if self.form == "seg_zero" else 1

    def _instruction(self) -> str:
        if self.form == "seg_zero":
            form = '{"bbox": [x1, y1, x2, y2], "points_1": [x, y], "points_2": [x, y]}'
            return f"The answer is JSON: one box and two points inside the object: {form}"
        form = '[{"bbox_2d": [x1, y1, x2, y2], "point_2d": [x, y]}]'
        return f"The answer is a JSON list, for each object a box and a point in it: {form}"

    def _write(self, targets: Sequence[Target]) -> str:
        items = [
            dict(zip(self._keys, (list(t.box), *(list(p) for p in t.points)), strict=True))
            for t in targets
        ]
        return json.dumps(items[0] if self.form == "seg_zero" else items)

    @property
    def _keys(self) -> tuple[str, ...]:
        single = self.form == "seg_zero"
        return ("bbox", "points_1", "points_2") if single else ("bbox_2d", "point_2d")

    def _read(self, text: str) -> Parsed[tuple[Target, ...]]:
        parsed = parse_json(text, max_depth=3)
        if parsed.value is None:
            return Parsed(parsed.status, None, parsed.reason)
        items = [parsed.value] if self.form == "seg_zero" else parsed.value
        if not isinstance(items, list) or not 0 < len(items) <= MAX_OBJECTS:
            return malformed(f"not a list of 1 to {MAX_OBJECTS} objects")
        found: list[Target] = []
        for item in items:
            if not isinstance(item, dict) or item.keys() != set(self._keys):
                return malformed(f"an object has the keys {self._keys}")
            box = box_of(item[self._keys[0]])
            points = [point_of(item[key]) for key in self._keys[1:]]
            if box.value is None or any(point.value is None for point in points):
                return malformed(box.reason or "a point is [x, y]")
            found.append(Target(box.value, tuple(p.value for p in points if p.value)))
        return ok(tuple(found))

    def _terms(
        self, golds: Sequence[Target], found: Sequence[Target]
    ) -> tuple[float, float, float]:
        """Share of overlap, corner and point terms over the larger number of objects."""
        limit = POINT_PIXELS[self.form]
        terms = [[_compare(gold, target, limit) for target in found] for gold in golds]
        pairs = assign([[float(sum(t)) for t in row] for row in terms])
        chosen = [terms[g][f] for g, f in pairs]
        count = max(len(golds), len(found))
        overlap, corners, points = (sum(t[i] for t in chosen) / count for i in range(3))
        return overlap, corners, points

    def _pixels(
        self, gold: Gold, found: Sequence[Target], size: tuple[int, int]
    ) -> tuple[int, int]:
        """Intersection and union of the answer's mask and the gold one (or the gold boxes)."""
        wanted = gold.mask.mask() if gold.mask else _fill([t.box for t in gold.targets], size)
        ignore = gold.ignore.mask() if gold.ignore else None
        boxes = [target.box for target in found]
        if self.segmenter is None or not found:
            return masks.overlap(_fill(boxes, size), wanted, ignore)
        if not gold.picture:
            raise ValueError("a segmenter needs pictures as files")
        segment = load_callable(self.segmenter, "segmenter")
        points = [point for target in found for point in target.points]
        mask = np.asarray(segment(gold.picture, boxes, points, size), dtype=bool)
        return masks.overlap(mask, wanted, ignore)


def _difficulty(fields: Mapping[str, Any]) -> dict[str, float]:
    """How difficult a record is said to be, for budgets that follow it."""
    given = fields.get("difficulty_score")
    return {} if given is None else {"difficulty_score": float(given)}


def _map(target: Target, space: Space, frame: Frame) -> Target:
    points = tuple(point_to_source(point, space, frame) for point in target.points)
    return Target(to_source(target.box, space, frame), points)


def _fill(boxes: Sequence[Box], size: tuple[int, int]) -> Bools:
    mask = np.zeros((size[1], size[0]), dtype=bool)
    for box in boxes:
        mask |= masks.box_mask(box, size)
    return mask


def _compare(gold: Target, found: Target, limit: float) -> tuple[bool, bool, bool]:
    """Whether boxes overlap, corners agree, and points lie in their own box near the gold ones."""
    corners = sum(abs(a - b) for a, b in zip(gold.box, found.box, strict=True)) / 4
    inside = all(in_box(point, found.box) for point in found.points)
    near = _mean_distance(gold.points, found.points) < limit
    return iou(gold.box, found.box) > OVERLAP, corners < CORNER_PIXELS, inside and near


def _mean_distance(golds: Sequence[Point], found: Sequence[Point]) -> float:
    pairs = assign([[-distance(a, b) for b in found] for a in golds])
    return sum(distance(golds[i], found[j]) for i, j in pairs) / len(pairs)


def _length_factor(text: str, budget: float | None) -> float:
    """1 up to the budget of words, falling to 0 over the next 500."""
    if budget is None:
        return 1.0
    return min(1.0, max(0.0, 1 - (len(text.split()) - budget) / WORDS_TO_NOTHING))


def _places(targets: Sequence[Target]) -> list[Box | Point]:
    boxes: list[Box | Point] = [target.box for target in targets]
    return [*boxes, *(point for target in targets for point in target.points)]
