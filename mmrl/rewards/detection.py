"""Lists of boxes: reading them, matching them with gold boxes, COCO's average precision.

All boxes that meet here are in source pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from mmrl.frame import Frame, Space
from mmrl.rewards.boxes import (
    Box,
    GoldSpace,
    box_of,
    from_source,
    gold_to_source,
    intersection,
    iou,
    to_source,
    write_box,
)
from mmrl.rewards.json_text import is_number, parse_json
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.types import Floats

COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
MAX_DETECTIONS = 100
"""Detections that COCO's AP looks at, best first, per image and category."""

_RECALLS = np.linspace(0.0, 1.0, 101)


class Detection(NamedTuple):
    """A found box; `label` is "" where only one category is asked for."""

    box: Box
    label: str = ""
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class GoldBoxes:
    """The boxes to find, in `space`; `asked` are the labels that an answer may use.

    `crowd` marks boxes around many objects: they are neither to be found nor false alarms (COCO).
    """

    boxes: tuple[Box, ...]
    labels: tuple[str, ...]
    asked: tuple[str, ...]
    space: GoldSpace = "pixels"
    crowd: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if not self.crowd:
            object.__setattr__(self, "crowd", (False,) * len(self.boxes))
        if not len(self.boxes) == len(self.labels) == len(self.crowd):
            raise ValueError("gold boxes, labels and crowd flags differ in number")
        strange = set(self.labels) - set(self.asked)
        if strange or not self.asked:
            raise ValueError(f"gold labels {sorted(strange)} are not asked for: {self.asked}")

    def in_source(self, frame: Frame) -> tuple[Box, ...]:
        """The boxes in source pixels."""
        return tuple(gold_to_source(box, self.space, frame) for box in self.boxes)

    def as_answer(self, frame: Frame, space: Space) -> tuple[Detection, ...]:
        """What a model has to say in `space` to be right about every box but the crowds."""
        rows = zip(self.in_source(frame), self.labels, self.crowd, strict=True)
        return tuple(
            Detection(from_source(box, space, frame), label)
            for box, label, crowd in rows
            if not crowd
        )

    def counts(self) -> dict[str, int]:
        """How many boxes of each asked label are to be found."""
        wanted = [x for x, crowd in zip(self.labels, self.crowd, strict=True) if not crowd]
        return {label: wanted.count(label) for label in self.asked}


@dataclass(frozen=True, slots=True)
class BoxListFormat:
    """How a list of boxes is written: a JSON list of objects with these keys and no others.

    `label_key` "" asks for one category only. `none` is what to answer when there is no box.
    """

    box_key: str
    label_key: str
    score_key: str
    none: str
    scores: Literal["required", "optional"] = "required"
    max_items: int = MAX_DETECTIONS

    def instruction(self) -> str:
        """Tell the model how to write its boxes."""
        example = self._item(Detection(Box(1, 2, 3, 4), "label", 0.9), "[x1, y1, x2, y2]")
        return (
            f"Write the boxes as a JSON list, one object each: [{example}]."
            f" If there are none, write {self.none}."
        )

    def read(self, text: str, asked: Sequence[str] = ("",)) -> Parsed[tuple[Detection, ...]]:
        """Read a list of boxes; a label that is not asked for is malformed, as is a repeated key.

        Confidences must lie in [0, 1]. `none` is an empty list; `[]` is not an answer.
        """
        if text.strip().lower() == self.none.lower():
            return ok(())
        items = parse_json(text, max_depth=3, max_nodes=8 * self.max_items + 8)
        if items.value is None:
            return Parsed(items.status, None, items.reason)
        if not isinstance(items.value, list) or not items.value:
            return malformed("not a list of boxes")
        if len(items.value) > self.max_items:
            return malformed(f"more than {self.max_items} boxes")
        found: list[Detection] = []
        for item in items.value:
            detection = self._read_item(item, asked)
            if detection.value is None:
                return malformed(detection.reason)
            found.append(detection.value)
        return ok(tuple(found))

    def write(self, detections: Sequence[Detection], space: Space) -> str:
        """Write boxes in the model's own space so that `read` gets them back."""
        items = [self._item(d, write_box(d.box, space)) for d in detections]
        return f"[{', '.join(items)}]" if items else self.none

    def _item(self, detection: Detection, corners: str) -> str:
        pairs = [f'"{self.box_key}": {corners}']
        if self.label_key:
            pairs.append(f'"{self.label_key}": {json.dumps(detection.label)}')
        if self.score_key and self.scores == "required":
            pairs.append(f'"{self.score_key}": {detection.score}')
        return "{" + ", ".join(pairs) + "}"

    def _read_item(self, item: Any, asked: Sequence[str]) -> Parsed[Detection]:
        needed = {self.box_key, self.label_key} - {""}
        allowed = needed | ({self.score_key} - {""})
        if self.scores == "required":
            needed = allowed
        if not isinstance(item, dict) or not needed <= item.keys() <= allowed:
            return malformed(f"each box is an object with the keys {sorted(needed)}")
        label = item[self.label_key] if self.label_key else asked[0]
        if not isinstance(label, str) or label not in asked:
            return malformed(f"label {label!r:.40} is not asked for")
        score = item.get(self.score_key, 1.0)
        if not is_number(score, 1.0) or score < 0:
            return malformed(f"confidence {score!r:.40} is not in [0, 1]")
        return box_of(item[self.box_key]).then(lambda box: ok(Detection(box, label, float(score))))


def to_source_all(found: Sequence[Detection], space: Space, frame: Frame) -> list[Detection]:
    """Map detections that the model gave in `space` to source pixels."""
    return [d._replace(box=to_source(d.box, space, frame)) for d in found]


def match_by_confidence(
    golds: Sequence[Box], found: Sequence[Detection], threshold: float = 0.5
) -> list[float]:
    """IoU of each detection with the gold box it takes, 0 where it takes none (Visual-RFT).

    The most confident first, each takes the free gold box of highest IoU, if above `threshold`.
    """
    overlaps = [0.0] * len(found)
    free = set(range(len(golds)))
    for i in sorted(range(len(found)), key=lambda i: -found[i].score):
        best = max(free, key=lambda g: (iou(found[i].box, golds[g]), -g), default=None)
        if best is not None and iou(found[i].box, golds[best]) > threshold:
            overlaps[i] = iou(found[i].box, golds[best])
            free.remove(best)
    return overlaps


def match_by_overlap(
    golds: Sequence[Box], found: Sequence[Detection], threshold: float = 0.5
) -> list[tuple[int, int, float]]:
    """(gold, detection, IoU) pairs, the best overlap of all first, down to `threshold` (VLM-R1)."""
    pairs = [
        (overlap, -g, -d)
        for g, gold in enumerate(golds)
        for d, detection in enumerate(found)
        if (overlap := iou(gold, detection.box)) >= threshold
    ]
    matched: list[tuple[int, int, float]] = []
    golds_left, found_left = set(range(len(golds))), set(range(len(found)))
    for overlap, g, d in sorted(pairs, reverse=True):
        if -g in golds_left and -d in found_left:
            golds_left.remove(-g)
            found_left.remove(-d)
            matched.append((-g, -d, overlap))
    return matched


def suppress(found: Sequence[Detection], threshold: float = 0.5) -> list[Detection]:
    """Class-blind non-maximum suppression: drop what overlaps a more confident box by more.

    Of equally confident boxes the one written first stays.
    """
    kept: list[Detection] = []
    for detection in sorted(found, key=lambda d: -d.score):
        if all(iou(detection.box, other.box) <= threshold for other in kept):
            kept.append(detection)
    return kept


def coco_matches(
    boxes: Sequence[Box], labels: Sequence[str], crowd: Sequence[bool], found: Sequence[Detection]
) -> list[tuple[str, float, int, int]]:
    """Match one image's detections as COCO does: (label, score, hits, ignored) of each.

    `hits` and `ignored` have a bit for each of COCO_THRESHOLDS. Plain numbers, to travel as the
    evidence of a score.
    """
    rows: list[tuple[str, float, int, int]] = []
    for label in dict.fromkeys(d.label for d in found):
        mine = sorted((d for d in found if d.label == label), key=lambda d: -d.score)
        mine = mine[:MAX_DETECTIONS]
        golds = [g for g in range(len(boxes)) if labels[g] == label]
        golds.sort(key=lambda g: crowd[g])
        flags = [crowd[g] for g in golds]
        overlaps = [[_coco_iou(d.box, boxes[g], crowd[g]) for g in golds] for d in mine]
        hits, ignored = [0] * len(mine), [0] * len(mine)
        for bit, threshold in enumerate(COCO_THRESHOLDS):
            for d, gold in enumerate(_match_at(overlaps, flags, threshold)):
                if gold is not None:
                    (ignored if flags[gold] else hits)[d] |= 1 << bit
        rows += [(label, d.score, hits[i], ignored[i]) for i, d in enumerate(mine)]
    return rows


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """COCO's AP over thresholds 0.50:0.95, and at 0.50 and 0.75; NaN without any gold box."""

    ap: float
    ap50: float
    ap75: float


def average_precision(
    matches: Sequence[Sequence[tuple[str, float, int, int]]], golds: Sequence[Mapping[str, int]]
) -> AveragePrecision:
    """COCO's AP of a corpus: the matches and the number of gold boxes per label of each record.

    Labels without a gold box anywhere do not count. Equal scores keep the order of the records.
    """
    totals: dict[str, int] = {}
    for counts in golds:
        for label, count in counts.items():
            totals[label] = totals.get(label, 0) + count
    by_label: dict[str, list[tuple[float, int, int]]] = {}
    for rows in matches:
        for label, score, hits, ignored in rows:
            by_label.setdefault(label, []).append((score, hits, ignored))
    tables = [
        _precision_table(by_label.get(label, []), count) for label, count in totals.items() if count
    ]
    if not tables:
        return AveragePrecision(float("nan"), float("nan"), float("nan"))
    table = np.mean(tables, axis=0)
    return AveragePrecision(float(table.mean()), float(table[0]), float(table[5]))


def image_precision(
    matches: Sequence[tuple[str, float, int, int]], golds: Mapping[str, int]
) -> AveragePrecision:
    """AP of one image by itself; where there is nothing to find, 1 for saying so, else 0."""
    if any(golds.values()):
        return average_precision([matches], [golds])
    silent = 0.0 if matches else 1.0
    return AveragePrecision(silent, silent, silent)


def corpus_precision(metas: Sequence[Mapping[str, Any]]) -> AveragePrecision:
    """AP of records whose meta has `golds` and, as evidence of an answer, `matches`.

    A corpus without any box to find gives the share of records that say so.
    """
    matches = [meta.get("matches", ()) for meta in metas]
    found = average_precision(matches, [meta["golds"] for meta in metas])
    if found.ap == found.ap:
        return found
    silent = sum("matches" in meta and not meta["matches"] for meta in metas) / len(metas)
    return AveragePrecision(silent, silent, silent)


def od_length(
    boxes: Sequence[Box],
    labels: Sequence[str],
    found: Sequence[Detection],
    at: Literal["50:95", "50"] = "50:95",
    length_penalty: bool = True,
) -> float:
    """AP of one image with every confidence 1, times golds / detections if that is below 1.

    VLM-R1's odLength; without the penalty its `map`. As all are equally confident, the order of
    the list decides which detections precede which.
    """
    if not boxes or not found:
        return float(not boxes and not found)
    sure = [d._replace(score=1.0) for d in found]
    golds = {label: list(labels).count(label) for label in labels}
    matches = coco_matches(boxes, labels, (False,) * len(boxes), sure)
    precision = image_precision(matches, golds)
    value = precision.ap if at == "50:95" else precision.ap50
    return value * min(1.0, len(boxes) / len(found)) if length_penalty else value


def _coco_iou(found: Box, gold: Box, crowd: bool) -> float:
    """IoU; with a crowd, the share of the detection that lies in it."""
    return intersection(found, gold) / found.area if crowd else iou(found, gold)


def _match_at(
    overlaps: Sequence[Sequence[float]], crowd: Sequence[bool], threshold: float
) -> list[int | None]:
    """The gold of each detection at one threshold; golds come crowds last.

    As in COCO's loop, of equal overlaps the later gold wins, and a crowd is taken only by a
    detection that finds no proper gold; it may be taken many times.
    """
    taken = [False] * len(crowd)
    chosen: list[int | None] = []
    for row in overlaps:
        best, best_overlap = None, min(threshold, 1 - 1e-10)
        for gold, overlap in enumerate(row):
            if taken[gold] and not crowd[gold]:
                continue
            if best is not None and not crowd[best] and crowd[gold]:
                break
            if overlap >= best_overlap:
                best, best_overlap = gold, overlap
        if best is not None:
            taken[best] = True
        chosen.append(best)
    return chosen


def _precision_table(rows: Sequence[tuple[float, int, int]], golds: int) -> Floats:
    """Mean interpolated precision at each threshold for one label."""
    order = np.argsort([-score for score, _, _ in rows], kind="mergesort")
    bits = 1 << np.arange(len(COCO_THRESHOLDS))
    hits = np.array([rows[i][1] for i in order], dtype=np.int64)[:, None] & bits > 0
    ignored = np.array([rows[i][2] for i in order], dtype=np.int64)[:, None] & bits > 0
    right = np.cumsum(hits & ~ignored, axis=0, dtype=float)
    wrong = np.cumsum(~hits & ~ignored, axis=0, dtype=float)
    means = np.zeros(len(COCO_THRESHOLDS))
    for t in range(len(COCO_THRESHOLDS)):
        recall = right[:, t] / golds
        precision = right[:, t] / (right[:, t] + wrong[:, t] + np.spacing(1))
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(recall, _RECALLS, side="left")
        means[t] = envelope[at[at < len(envelope)]].sum() / len(_RECALLS)
    return means
