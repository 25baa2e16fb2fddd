from __future__ import annotations

import contextlib
import io
import random
from pathlib import Path
from typing import Any

import pytest

from mmrl.errors import UserError
from mmrl.frame import Frame, Space
from mmrl.rewards.boxes import Box, from_source
from mmrl.rewards.detection import (
    BoxListFormat,
    Detection,
    GoldBoxes,
    average_precision,
    coco_matches,
    match_by_confidence,
    match_by_overlap,
    od_length,
    suppress,
)
from mmrl.scoring.tasks import load_task, resolve_weights, weigh
from mmrl.types import Answer, Record

# A 1000 x 500 picture of which the middle was cut out and shown at 700 x 350: thousandths of the
# source are neither what the model sees nor source pixels.
FRAME = Frame((1000, 500), (700, 350), crop=(50, 25, 950, 475))
A, B = Box(100, 100, 300, 300), Box(500, 500, 700, 700)
GOLD = GoldBoxes((A, B), ("cat", "cat"), ("cat",), "thousand")


def said(box: Box, space: Space = "processed_pixels") -> list[float]:
    """How a model that sees FRAME says a box given in thousandths of the source."""
    pixels = Box(box.x1, box.y1 / 2, box.x2, box.y2 / 2)
    return list(from_source(pixels, space, FRAME))


def item(box: Box, confidence: float) -> str:
    return f'{{"Position": {said(box)}, "Confidence": {confidence}}}'


def graded(gold: GoldBoxes, payload: str, **params: Any) -> Any:
    task = load_task("detection", params)
    answer = Answer(f"<think>t</think><answer>{payload}</answer>", frames=(FRAME,))
    return weigh(task.score(gold, answer), resolve_weights(task, {}))


def test_worked_example_1_two_boxes() -> None:
    moved = Box(520, 520, 720, 720)
    score = graded(GOLD, f"[{item(A, 0.9)}, {item(moved, 0.8)}]")
    assert score.parts["boxes"] == pytest.approx((1 + 32400 / 47600) / 2)
    assert score.parts["confidence"] == pytest.approx(0.85)
    assert score.reward == pytest.approx(2.690, abs=5e-4)


def test_worked_example_2_junk_of_no_confidence() -> None:
    junk = f"[{item(Box(0, 0, 10, 10), 0)}]"
    assert graded(GOLD, junk, variant="code").reward == pytest.approx(2.0)
    strict = graded(GOLD, junk)
    assert strict.parts == {"boxes": 0.0, "confidence": 0.0, "format": 1.0}


@pytest.mark.parametrize(("first", "expected"), [("good", 0.5), ("junk", 0.25)])
def test_worked_example_3_od_length_and_order(first: str, expected: float) -> None:
    good = [item(A, 0.1), item(B, 0.1)]
    junk = [item(Box(0, 0, 10, 10), 1), item(Box(900, 0, 950, 10), 1)]
    payload = f"[{', '.join(good + junk if first == 'good' else junk + good)}]"
    score = graded(GOLD, payload, reward="odlength")
    assert score.parts["boxes"] == pytest.approx(expected, abs=5e-3)
    plain = graded(GOLD, payload, reward="map").parts["boxes"]
    assert plain == pytest.approx(2 * expected, abs=5e-3)


def test_what_is_seen_is_not_the_source() -> None:
    raw = f'[{{"Position": {list(A)}, "Confidence": 1}}]'
    assert graded(GOLD, raw).parts["boxes"] == 0.0
    assert graded(GOLD, f"[{item(A, 1)}]").parts["boxes"] == 0.5


def test_nothing_to_find() -> None:
    empty = GoldBoxes((), (), ("cat",))
    assert graded(empty, "No Objects").parts == {"boxes": 1.0, "confidence": 1.0, "format": 1.0}
    assert graded(empty, "No Objects").metric == 1.0
    wrong = graded(empty, f"[{item(A, 0)}]")
    assert wrong.parts == {"boxes": 0.0, "confidence": 0.0, "format": 1.0} and wrong.metric == 0.0
    assert graded(empty, "[]").status == "malformed"
    assert graded(GOLD, "No Objects").parts == {"boxes": 0.0, "confidence": 0.0, "format": 1.0}


def test_repeats_cost_unless_the_published_code_is_asked_for() -> None:
    payload = f"[{', '.join([item(A, 1), item(B, 1)] + [item(A, 1)] * 2)}]"
    assert graded(GOLD, payload).parts["boxes"] == pytest.approx(0.5)
    assert graded(GOLD, payload, variant="code").parts["boxes"] == pytest.approx(1.0)


def labelled(box: Box, label: str) -> str:
    return f'{{"bbox_2d": {said(box)}, "label": "{label}"}}'


def test_weighted_sum_and_labels() -> None:
    gold = GoldBoxes((A, B), ("cat", "dog"), ("cat", "dog"), "thousand")
    params = {"form": "vlm_r1", "reward": "weighted"}

    def boxes(*items: str, variant: str = "strict") -> float:
        return float(
            graded(gold, f"[{', '.join(items)}]", variant=variant, **params).parts["boxes"]
        )

    assert boxes(labelled(A, "cat"), labelled(B, "dog")) == pytest.approx(1.0)
    # one of two found, no false alarm: 0.7 / 2 + 0.3 * (1 - (1/2 + 0) / 2)
    assert boxes(labelled(A, "cat")) == pytest.approx(0.35 + 0.3 * 0.75)
    assert boxes(labelled(A, "dog"), labelled(B, "cat")) == 0.0
    swapped = boxes(labelled(A, "dog"), labelled(B, "cat"), variant="code")
    assert swapped == pytest.approx(0.3)
    assert graded(gold, f"[{labelled(A, 'cow')}]", **params).status == "malformed"


@pytest.mark.parametrize(
    "payload",
    [
        "", "cat", "null", "[]", "{}", "[[1, 2, 3, 4]]", "[1]", '["No Objects"]', "None",
        '[{"Position": [1, 2, 3, 4]}]',
        '[{"Position": [1, 2, 3, 4], "Confidence": 1, "label": "cat"}]',
        '[{"Position": [1, 2, 3, 4], "Confidence": 100}]',
        '[{"Position": [1, 2, 3, 4], "Confidence": -0.1}]',
        '[{"Position": [1, 2, 3, 4], "Confidence": NaN}]',
        '[{"Position": [1, 2, 3, 4], "Confidence": "1"}]',
        '[{"Position": [1, 2, 3, 4], "Confidence": true}]',
        '[{"Position": [3, 2, 1, 4], "Confidence": 1}]',
        '[{"Position": [1, 2, 1e999, 4], "Confidence": 1}]',
        '[{"Position": [1, 2, 1e30, 4], "Confidence": 1}]',
        '[{"Position": [1, 2, Infinity, 4], "Confidence": 1}]',
        '[{"Position": ["1", 2, 3, 4], "Confidence": 1}]',
        '[{"Position": [1, 2, 3, 4], "Confidence": 1, "Confidence": 0}]',
        '[{"Position": [1, 2, 3, 4], "Confidence": 1}',
        "[{'Position': [1, 2, 3, 4], 'Confidence': 1}]",
        '[{"Position": [\uff11, 2, 3, 4], "Confidence": 1}]',
        "[" + ", ".join(['{"Position": [1, 2, 3, 4], "Confidence": 1}'] * 101) + "]",
    ],
)  # fmt: skip
def test_not_an_answer(payload: str) -> None:
    score = graded(GOLD, payload)
    assert score.status in ("malformed", "missing"), payload
    assert score.reward == 0.0 and score.metric == 0.0


def test_a_hundred_boxes_are_read() -> None:
    payload = "[" + ", ".join(['{"Position": [1, 2, 3, 4], "Confidence": 1}'] * 100) + "]"
    assert graded(GOLD, payload).status == "ok"


def test_corpus_ap_counts_every_record() -> None:
    task = load_task("detection")
    right = {"golds": {"cat": 1}, "matches": [("cat", 1.0, 1023, 0)]}
    never_scored = {"golds": {"cat": 1}}
    assert task.aggregate([1.0], [right]) == pytest.approx(1.0)
    # recall stops at 1/2: 51 of 101 recall points have precision 1
    assert task.aggregate([1.0, 0.0], [right, never_scored]) == pytest.approx(51 / 101)
    other = {"golds": {"dog": 2}, "matches": []}
    assert task.aggregate([1.0, 0.0], [right, other]) == pytest.approx(0.5)
    assert task.breakdown([1.0], [right]) == {
        "AP50": pytest.approx(1.0), "AP75": pytest.approx(1.0)
    }  # fmt: skip
    nothing = [{"golds": {"cat": 0}, "matches": []}, {"golds": {"cat": 0}}]
    assert task.aggregate([1.0, 0.0], nothing) == 0.5


def test_matching_prefers_the_confident_and_the_near() -> None:
    near, far = Box(0, 0, 10, 10), Box(0, 0, 10, 9)
    found = [Detection(far, score=0.1), Detection(near, score=0.9)]
    assert match_by_confidence([near], found) == [0.0, 1.0]
    assert match_by_confidence([near], found, threshold=1.0) == [0.0, 0.0]
    assert match_by_overlap([near], found) == [(0, 1, 1.0)]
    # half of the area: an IoU of exactly 0.5 is in by >= and out by >
    half = [Detection(Box(0, 0, 10, 5))]
    assert match_by_confidence([near], half) == [0.0]
    assert match_by_overlap([near], half) == [(0, 0, 0.5)]


def test_suppression_keeps_the_confident_then_the_first() -> None:
    a, b = Detection(A, "cup", 0.6), Detection(A, "bowl", 0.9)
    assert suppress([a, b]) == [b]
    tied = [Detection(A, "cup"), Detection(A, "bowl"), Detection(B, "bowl")]
    assert suppress(tied) == [tied[0], tied[2]]


def test_od_length_is_bounded_by_the_golds() -> None:
    assert od_length([], [], []) == 1.0
    assert od_length([A], ["x"], []) == od_length([], [], [Detection(A)]) == 0.0
    many = [Detection(A, "x")] * 50
    assert od_length([A], ["x"], many) == pytest.approx(1 / 50)


@pytest.mark.parametrize(
    "fields",
    [
        {"problem": "Find cats.", "solution": "<answer>No Objects</answer>"},
        {"problem": "category 'cat'", "solution": "<answer></answer>"},
        {"problem": "category 'cat'", "solution": "[{'Position': [1, 2, 3]}]"},
        {"problem": "category 'cat'", "solution": "[{'Position': [3, 2, 1, 4]}]"},
        {"problem": "category 'cat'", "solution": "{'Position': [1, 2, 3, 4]} No Objects"},
        {"categories": ["cat"], "annotations": [{"bbox": [1, 2, 0, 4], "category": "cat"}]},
        {"categories": ["cat"], "annotations": [{"bbox": [1, 2, 3, 4], "category": "dog"}]},
        {"categories": ["cat", "dog"], "annotations": []},
        {"categories": [], "annotations": []},
        {"conversations": [{"value": "Find."}, {"value": "None"}]},
        {"conversations": [{"value": "['cat']"}, {"value": "[]"}]},
        {"conversations": [{"value": "['cat']"}, {"value": "a cat"}]},
    ],
)
def test_unusable_gold_raises_value_error(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        load_task("detection").sample(Record("1", {"image": "a.png", **fields}, tmp_path))


def test_conversations_name_what_is_asked(tmp_path: Path) -> None:
    turns = [
        {"value": "<image>Detect the following objects: ['cat', 'dog']."},
        {"value": '```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "dog"}]\n```'},
    ]
    task = load_task("detection", {"form": "vlm_r1"})
    sample = task.sample(Record("1", {"image": "a.png", "conversations": turns}, tmp_path))
    assert sample.gold == GoldBoxes((Box(1, 2, 3, 4),), ("dog",), ("cat", "dog"))
    assert sample.meta == {"golds": {"cat": 0, "dog": 1}}


def test_unknown_reward_is_refused() -> None:
    with pytest.raises(UserError, match="'reward'"):
        load_task("detection", {"reward": "best"})


@pytest.mark.parametrize("space", ["processed_pixels", "unit", "thousand"])
def test_targets_round_trip_through_every_space(space: Space) -> None:
    form = BoxListFormat("Position", "", "Confidence", "No Objects")
    text = form.write(GOLD.as_answer(FRAME, space), space)
    task = load_task("detection")
    answer = Answer(f"<think></think><answer>{text}</answer>", frames=(FRAME,), space=space)
    score = task.score(GOLD, answer)
    assert score.parts["boxes"] == pytest.approx(1.0, abs=1e-3)
    assert score.metric == pytest.approx(1.0)


LABELS = ("a", "b", "c")
Corpus = list[tuple[list[Box], list[str], list[bool], list[Detection]]]


def random_corpus(seed: int) -> Corpus:
    """Boxes on a coarse grid, so that equal overlaps, scores and thresholds do occur."""
    rng = random.Random(seed)

    def box(near: Box | None = None) -> Box:
        if near is None:
            x, y = rng.randint(0, 80), rng.randint(0, 80)
            return Box(x, y, x + rng.randint(2, 20), y + rng.randint(2, 20))
        low = [c + rng.randint(-3, 3) / 2 for c in near[:2]]
        return Box(low[0], low[1], *(c + rng.randint(0, 3) / 2 for c in near[2:]))

    corpus: Corpus = []
    for _ in range(8):
        boxes = [box() for _ in range(rng.randint(0, 6))]
        labels = [rng.choice(LABELS) for _ in boxes]
        found = [
            Detection(box(b), rng.choice((x, x, *LABELS)), rng.choice((0.5, 1.0, rng.random())))
            for b, x in zip(boxes, labels, strict=True)
            for _ in range(rng.choice((0, 1, 1, 2)))
        ]
        found += [Detection(box(), rng.choice(LABELS), rng.random()) for _ in range(2)]
        rng.shuffle(found)
        corpus.append((boxes, labels, [rng.random() < 0.2 for _ in boxes], found))
    return corpus


def reference_ap(corpus: Corpus) -> list[float]:
    coco_module = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    from pycocotools.cocoeval import COCOeval

    def xywh(box: Box) -> list[float]:
        return [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1]

    golds = [
        {"image_id": i, "category_id": LABELS.index(label), "bbox": xywh(box), "area": box.area,
         "iscrowd": int(crowd)}
        for i, (boxes, labels, crowds, _) in enumerate(corpus)
        for box, label, crowd in zip(boxes, labels, crowds, strict=True)
    ]  # fmt: skip
    found = [
        {"image_id": i, "category_id": LABELS.index(d.label), "bbox": xywh(d.box), "score": d.score}
        for i, (_, _, _, detections) in enumerate(corpus)
        for d in detections
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_module.COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(corpus))],
            "annotations": [{**gold, "id": i} for i, gold in enumerate(golds, 1)],
            "categories": [{"id": i} for i in range(len(LABELS))],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(x) for x in evaluation.stats[:3]]


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_equals_pycocotools(seed: int) -> None:
    corpus = random_corpus(seed)
    reference = reference_ap(corpus)
    matches = [coco_matches(boxes, labels, crowds, d) for boxes, labels, crowds, d in corpus]
    golds = [
        GoldBoxes(tuple(boxes), tuple(labels), LABELS, crowd=tuple(crowds)).counts()
        for boxes, labels, crowds, _ in corpus
    ]
    ours = average_precision(matches, golds)
    assert [ours.ap, ours.ap50, ours.ap75] == pytest.approx(reference, abs=1e-9)


def test_a_crowd_does_not_take_what_a_proper_gold_can() -> None:
    # all of the detection lies in the crowd, and 0.96 of its union with the gold box is shared
    found = [Detection(Box(100, 100, 300, 292), "a")]
    corpus: Corpus = [([A, A], ["a", "a"], [True, False], found)]
    assert coco_matches(*corpus[0]) == [("a", 1.0, 1023, 0)]
    ours = average_precision([coco_matches(*corpus[0])], [{"a": 1}])
    assert ours.ap == pytest.approx(reference_ap(corpus)[0]) == pytest.approx(1.0)


def test_only_the_hundred_best_count_as_in_coco() -> None:
    junk = [Detection(Box(500, 500, 501 + i / 1000, 501), "a", 0.9) for i in range(100)]
    corpus: Corpus = [([A], ["a"], [False], [*junk, Detection(A, "a", 0.1)])]
    ours = average_precision([coco_matches(*corpus[0])], [{"a": 1}])
    assert ours.ap == 0.0
    assert reference_ap(corpus)[0] == 0.0
