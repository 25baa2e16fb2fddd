"""Pairwise judges: verdicts, orders of presentation, pair-level accuracy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrl.evaluate.summary import estimate, units
from mmrl.rewards.labels import Label
from mmrl.rewards.pairwise import SWAPPED, consistency, consistent_accuracy
from mmrl.scoring.tasks import load_task
from mmrl.types import MediaRef, Text
from tests.grading import asked, graded, reward

SENTENCES = ("Image 1 is better", "Image 2 is better")
FIRST = Label(SENTENCES[0], SENTENCES)


def tagged(text: str) -> str:
    return f"<think>Image 1 is better?</think> <answer>{text}</answer>"


@pytest.mark.parametrize(
    ("text", "strict", "code"),
    [
        (tagged("Image 1 is better"), 2.0, 2.0),
        (tagged("Image 2 is better"), 1.0, 1.0),
        (tagged("Image 1 is better."), 2.0, 1.0),
        ("Image 1 is better", 0.0, 1.0),
        (tagged("not Image 1 is better"), 1.0, 1.0),
        (tagged("Image 1 is better; Image 2 is better"), 1.0, 1.0),
        (tagged("Both are equally good"), 1.0, 1.0),
        (tagged(""), 0.0, 0.0),
    ],
)
def test_visual_verdicts(text: str, strict: float, code: float) -> None:
    assert reward("visual_judge", FIRST, text) == strict
    assert reward("visual_judge", FIRST, text, variant="code") == code


def shown(fields: dict[str, Any], **params: Any) -> list[str]:
    sample = asked("visual_judge", fields, **params)
    return [
        p.text if isinstance(p, Text) else Path(str(p.source)).name
        for p in sample.parts
        if isinstance(p, Text | MediaRef)
    ]


def test_swapping_moves_the_media_and_the_gold_together() -> None:
    row = {"problem": "Which?", "solution": "Image 1 is better", "images": ["a.png", "b.png"]}
    assert shown(row)[2] == "a.png" and shown({**row, SWAPPED: True})[2] == "b.png"
    assert asked("visual_judge", row).gold.name == "Image 1 is better"
    assert asked("visual_judge", {**row, SWAPPED: True}).gold.name == "Image 2 is better"
    ranks = {"query": "?", "response": ["x", "y"], "human_ranking": [1, 0], "image": "a.png"}
    assert asked("visual_judge", ranks).gold.name == "Answer 2 is better"
    assert asked("visual_judge", {**ranks, SWAPPED: True}).gold.name == "Answer 1 is better"
    assert "\nAnswer 1: y" in shown({**ranks, SWAPPED: True})


def test_votes_ties_and_groups() -> None:
    row = {"prompt": "a cat", "video_left": "l.mp4", "video_right": "r.mp4"}
    assert asked("visual_judge", {**row, "vote_type": "rightvote"}).gold.name == "Video 2 is better"
    with pytest.raises(ValueError, match="tie"):
        asked("visual_judge", {**row, "vote_type": "tievote"})
    tie = asked("visual_judge", {**row, "vote_type": "tievote"}, ties=True)
    assert tie.gold.name == "Both are equally good" and tie.meta["tie"]
    ranks = {"query": "?", "response": ["x", "y"], "human_ranking": [0, 1]}
    for name, group in (("mathverse_1", "reasoning"), ("RLAIF-V-2", "hallucination"),
                        ("wildvision-3", "general")):  # fmt: skip
        assert asked("visual_judge", {**ranks, "id": name}).meta["group"] == group
    metas = [
        {"group": "a", "tie": False},
        {"group": "a", "tie": False},
        {"group": "b", "tie": True},
    ]
    task = load_task("visual_judge")
    assert task.aggregate([1.0, 0.0, 1.0], metas) == 0.75
    assert task.breakdown([1.0, 0.0, 1.0], metas)["without_ties"] == 0.5


@pytest.mark.parametrize(
    "fields",
    [
        {"problem": "?", "solution": "Image 3 is better", "images": ["a.png", "b.png"]},
        {"problem": "?", "solution": "", "images": ["a.png", "b.png"]},
        {"problem": "?", "solution": "Image 1 is better", "images": ["a.png"]},
        {"problem": "?", "solution": "Answer 1 is better"},
        {"query": "?", "response": ["x", "y"], "human_ranking": [0, 0]},
        {"prompt": "?", "video_left": "l", "video_right": "r", "vote_type": "maybe"},
    ],
)
def test_visual_golds_must_decide(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"verdict|empty|compared|ranks|vote"):
        asked("visual_judge", fields)


def test_text_responses_stand_where_the_gold_says() -> None:
    row = {"question": "?", "response_A": "worse", "response_B": "better", "label": "B>A"}
    for swapped, letter in ((False, "B"), (True, "A")):
        sample = asked("text_judge", {**row, SWAPPED: swapped})
        prompt = "".join(part.text for part in sample.parts if isinstance(part, Text))
        assert sample.gold == letter
        assert f"[Response {letter}]\nbetter" in prompt


def write(path: Path, count: int) -> Path:
    row = {"question": "?", "response_A": "x", "response_B": "y", "label": "A"}
    path.write_text("".join(json.dumps({**row, "id": f"p{i}"}) + "\n" for i in range(count)))
    return path


def test_orders_are_the_same_in_every_run(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", 60)
    both = [r.id for r in load_task("text_judge").records(path)]
    assert both[:4] == ["p0/ab", "p0/ba", "p1/ab", "p1/ba"] and len(set(both)) == 120
    task = load_task("text_judge", {"order": "shuffled"})
    first, again = ([task.sample(r).gold for r in task.records(path)] for _ in range(2))
    assert first == again and 15 < first.count("A") < 45
    plain = load_task("text_judge", {"order": "as_is"})
    assert {plain.sample(r).gold for r in plain.records(path)} == {"A"}


def judged(path: Path, verdicts: dict[str, str]) -> tuple[list[float], list[dict[str, Any]]]:
    """Values and metas of the pairs, by the verdicts on `pair/order`; "" is no verdict."""
    task, values, metas = load_task("text_judge"), [], []
    for record in task.records(path):
        sample = task.sample(record)
        score = graded("text_judge", sample.gold, tagged(verdicts[record.id]))
        assert score.metric is not None
        values.append(score.metric)
        metas.append({**sample.meta, **score.evidence})
    return values, metas


@pytest.mark.parametrize(
    ("ab", "ba", "right", "same"),
    [("A", "B", 1.0, 1.0), ("A", "A", 0.0, 0.0), ("B", "A", 0.0, 1.0), ("A", "", 0.0, 0.0),
     ("", "", 0.0, 0.0)],
)  # fmt: skip
def test_pairs_count_when_both_orders_are_right(
    tmp_path: Path, ab: str, ba: str, right: float, same: float
) -> None:
    values, metas = judged(write(tmp_path / "p.jsonl", 1), {"p0/ab": ab, "p0/ba": ba})
    task = load_task("text_judge")
    assert task.aggregate(values, metas) == right
    assert task.breakdown(values, metas)["consistency"] == same


def test_a_judge_that_always_says_a_has_no_consistent_accuracy(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", 10)
    ids = [r.id for r in load_task("text_judge").records(path)]
    values, metas = judged(path, dict.fromkeys(ids, "A"))
    assert sum(values) / len(values) == 0.5
    assert consistent_accuracy(values, metas) == consistency(values, metas) == 0.0
    assert load_task("text_judge").breakdown(values, metas)["ab"] == 1.0


def test_half_a_pair_is_not_consistent() -> None:
    for swapped in (False, True):
        assert consistent_accuracy([1.0, 1.0], [{"pair": "p", "swapped": swapped}] * 2) == 0.0


def interval(values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    task = load_task("text_judge")

    def aggregate(chosen: Sequence[int]) -> float:
        return task.aggregate([values[i] for i in chosen], [metas[i] for i in chosen])

    found = estimate(aggregate, units(metas))
    return found.low, found.high


def test_the_bootstrap_draws_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", 40)
    ids = [r.id for r in load_task("text_judge").records(path)]
    right = {i: "A" if i.endswith("ab") else "B" for i in ids}
    values, metas = judged(path, right)
    assert interval(values, metas) == (1.0, 1.0)
    half = {i: v if int(i[1:-3]) % 2 else "A" for i, v in right.items()}
    low, high = interval(*judged(path, half))
    spread = 1.96 * np.sqrt(0.25 / 40)
    assert low == pytest.approx(0.5 - spread, abs=0.05)
    assert high == pytest.approx(0.5 + spread, abs=0.05)


def test_text_golds_must_decide() -> None:
    row = {"question": "?", "response_A": "x", "response_B": "y"}
    for change in ({"label": "tie"}, {"label": ""}, {"label": "A", "response_B": " "}):
        with pytest.raises(ValueError, match="no verdict"):
            asked("text_judge", {**row, **change})
