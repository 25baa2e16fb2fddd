"""Video choice, typed mixture, VSI-Bench, Ego-ST, VideoHallu and grounded questions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mmrl.frame import Frame
from mmrl.rewards.choices import Choice
from mmrl.rewards.intervals import Interval
from mmrl.rewards.typed import TypedGold
from mmrl.scoring.tasks import load_task, resolve_weights, weigh
from mmrl.tasks.grounded_video_qa.task import Gold as Grounded
from mmrl.types import Answer, MediaRef, Record, Score

ANIMALS = Choice(("dog", "cat", "cow", "hen"), "B")
ADVERSARIES = (
    "", "<answer>", "<answer></answer>", "B", "<answer>A</answer><answer>B</answer>",
    "<answer>A, B</answer>", "<answer>ABCD</answer>", "<answer>\u0412</answer>",
    "<answer>B" * 9_000, "<answer>NaN</answer>", "<answer>1e999</answer>",
    "<answer>" + "[" * 4_000 + "</answer>",
)  # fmt: skip


def said(text: str) -> str:
    return f"<think>t</think><answer>{text}</answer>"


def graded(name: str, gold: Any, text: str, *frames: Frame, **params: Any) -> Score:
    task = load_task(name, params)
    return weigh(task.score(gold, Answer(text, frames=frames)), resolve_weights(task, {}))


def sample_of(name: str, fields: Mapping[str, Any], root: Path, **params: Any) -> Any:
    return load_task(name, params).sample(Record("1", fields, root))


@pytest.mark.parametrize(
    ("text", "reward", "official"),
    [
        ("B", 2.0, 1.0),
        ("(B)", 2.0, 1.0),
        ("B)", 2.0, 1.0),
        ("B. cat", 2.0, 1.0),
        ("B. dog", 1.0, 1.0),
        ("cat", 2.0, 0.0),
        ("A cat", 1.0, 0.0),
        ("The best answer is B", 1.0, 1.0),
        ("b", 2.0, 0.0),
    ],
)
def test_video_choice(text: str, reward: float, official: float) -> None:
    score = graded("video_choice", ANIMALS, said(text), extractor="official")
    assert (score.reward, score.metric) == (reward, official)
    strict = graded("video_choice", ANIMALS, said(text))
    assert strict.metric == float(reward == 2.0)


@pytest.mark.parametrize("text", ADVERSARIES)
def test_no_adversary_is_right(text: str) -> None:
    frame = Frame((64, 64), (32, 32), seconds=(3.0, 4.0))
    grounded = Grounded(ANIMALS, (Interval(1, 2),))
    for name, gold in (
        ("video_choice", ANIMALS), ("vsi_bench", ANIMALS), ("vsi_bench", "4"),
        ("ego_st", ANIMALS), ("video_mix", TypedGold("multiple choice", "B", ANIMALS.options)),
        ("video_hallu", ("Is it so?", "Yes")), ("grounded_video_qa", grounded),
    ):  # fmt: skip
        if (name, text) == ("grounded_video_qa", "<answer>"):
            assert graded(name, gold, text, frame).status == "malformed"
        assert graded(name, gold, text, frame).reward == 0.0, name


def test_video_choice_layouts(tmp_path: Path) -> None:
    mme = {"videoID": "x1", "question": "?", "options": ["A. dog", "B. cat"], "answer": "B",
           "duration": "short", "task_type": "OCR"}  # fmt: skip
    sample = sample_of("video_choice", mme, tmp_path, video_path="videos/{video}.mp4")
    assert sample.gold == Choice(("dog", "cat"), "B")
    assert sample.parts[0] == MediaRef("video", tmp_path / "videos" / "x1.mp4")
    mv = {"video": "a.mp4", "question": "?", "candidates": ["x", "y"], "answer": "y",
          "start": 1, "end": 2.5, "task": "t"}  # fmt: skip
    sample = sample_of("video_choice", mv, tmp_path)
    assert sample.gold == Choice(("x", "y"), "B")
    assert sample.parts[0].options == {"start": 1.0, "end": 2.5}
    for broken in ({**mv, "answer": "z"}, {**mv, "candidates": ["y", "y"]}, {**mme, "answer": "E"}):
        with pytest.raises(ValueError):
            sample_of("video_choice", broken, tmp_path)


def test_shuffling_moves_the_gold_along_and_repeats_itself(tmp_path: Path) -> None:
    fields = {"video": "a.mp4", "question": "?", "candidates": list("wxyz"), "answer": "y"}
    orders = set()
    for seed in range(20):
        gold = sample_of("video_choice", fields, tmp_path, shuffle=seed).gold
        assert gold == sample_of("video_choice", fields, tmp_path, shuffle=seed).gold
        assert gold.text == "y" and sorted(gold.options) == list("wxyz")
        orders.add(gold.options)
    assert len(orders) > 5


def test_macro_mean_over_tasks() -> None:
    metas = [{"task": "a"}, {"task": "a"}, {"task": "a"}, {"task": "b"}]
    values = [1.0, 1.0, 1.0, 0.0]
    assert load_task("video_choice").aggregate(values, metas) == 0.75
    assert load_task("video_choice", {"average": "tasks"}).aggregate(values, metas) == 0.5


@pytest.mark.parametrize(
    ("kind", "gold", "text", "value"),
    [
        ("OCR", "hello world", "hello word", 0.5),
        ("regression", "10", "8", 0.8),
        ("numerical", "3", "3.0", 1.0),
        ("numerical", "3", "3.1", 0.0),
        ("OCR", "one", "one two three four", 0.0),
    ],
)
def test_video_mix_by_type(kind: Any, gold: str, text: str, value: float) -> None:
    score = graded("video_mix", TypedGold(kind, gold), said(text))
    assert score.parts["accuracy"] == pytest.approx(value)


def test_video_mix_as_published_and_its_metric() -> None:
    gold = TypedGold("numerical", "3")
    assert graded("video_mix", gold, said("3.0"), variant="code").parts["accuracy"] == 0.0
    # regression counts by MRA with a strict bound: 0.2 is below 1 - t for t up to 0.75
    assert graded("video_mix", TypedGold("regression", "10"), said("8")).metric == 0.6


def test_video_mix_takes_its_medium_from_the_record(tmp_path: Path) -> None:
    fields = {"problem": "?", "data_type": "image", "problem_type": "numerical", "path": "a.png",
              "solution": "<answer>3</answer>"}  # fmt: skip
    assert sample_of("video_mix", fields, tmp_path).parts[0].kind == "image"
    for broken in ({**fields, "data_type": "smell"}, {**fields, "solution": "<answer></answer>"}):
        with pytest.raises(ValueError):
            sample_of("video_mix", broken, tmp_path)


@pytest.mark.parametrize(
    ("gold", "text", "exact", "code"),
    [("2", "2.2", 0.9, 0.9), ("5", "4", 0.7, 0.6), ("2", "3", 0.1, 0.1), ("2", "two", 0.0, 0.0)],
)
def test_vsi_bench_numbers(gold: str, text: str, exact: float, code: float) -> None:
    found = graded("vsi_bench", gold, said(text))
    assert (found.parts["accuracy"], found.metric) == (pytest.approx(exact), pytest.approx(exact))
    coded = graded("vsi_bench", gold, said(text), variant="code")
    assert coded.metric == pytest.approx(code)


def test_vsi_bench_official_reads_the_first_word() -> None:
    params = {"extractor": "official"}
    assert graded("vsi_bench", "2", " 2. chairs", **params).metric == 1.0
    assert graded("vsi_bench", "2", "about 2", **params).metric == 0.0
    assert graded("vsi_bench", ANIMALS, "b. The cat", **params).metric == 1.0
    assert graded("vsi_bench", ANIMALS, "b. The cat").metric == 0.0
    assert graded("vsi_bench", "2", "", **params).metric == 0.0


def test_vsi_bench_is_the_mean_of_its_tasks_with_direction_as_one() -> None:
    kinds = ("object_rel_direction_easy", "object_rel_direction_hard", "room_size_estimation")
    metas = [{"task": kind} for kind in (*kinds, kinds[2])]
    task = load_task("vsi_bench")
    assert task.breakdown([1.0, 0.0, 0.4, 0.6], metas) == {
        "object_rel_direction": 0.5, "room_size_estimation": 0.5
    }  # fmt: skip
    assert task.aggregate([1.0, 0.5, 0.1, 0.1], metas) == pytest.approx((0.75 + 0.1) / 2)


@pytest.mark.parametrize(
    "changes",
    [{"ground_truth": "0"}, {"ground_truth": "many"}, {"question_type": "smell"},
     {"question_type": "route_planning", "options": ["A. x", "B. y"], "ground_truth": "C"}],
)  # fmt: skip
def test_vsi_bench_rejects_unusable_gold(changes: Any, tmp_path: Path) -> None:
    fields = {"dataset": "d", "scene_name": "s", "question": "?", "options": None,
              "question_type": "object_counting", "ground_truth": "3", **changes}  # fmt: skip
    with pytest.raises(ValueError):
        sample_of("vsi_bench", fields, tmp_path)


@pytest.mark.parametrize(
    ("text", "strict", "code"),
    [("D", 1.0, 1.0), ("Definitely not B", 0.0, 1.0), ("B", 0.0, 0.0), ("d", 1.0, 1.0)],
)
def test_ego_st(text: str, strict: float, code: float) -> None:
    gold = Choice(("w", "x", "y", "z"), "D")
    assert graded("ego_st", gold, said(text)).parts["accuracy"] == strict
    coded = graded("ego_st", gold, said(text), variant="code")
    assert (coded.parts["accuracy"], coded.metric) == (code, strict)


def test_ego_st_reads_all_public_records() -> None:
    folder = os.environ.get("MMRL_TEST_DATA")
    path = Path(folder or "", "WPR001__Ego-ST/ST-R1/r1_data/total_test_mcq_63.jsonl")
    if not folder or not path.is_file():
        pytest.skip("MMRL_TEST_DATA does not hold Ego-ST's test records")
    task = load_task("ego_st")
    samples = [task.sample(record) for record in task.records(path)]
    assert len(samples) == 63
    assert {len(sample.gold.options) for sample in samples} == {3, 4}
    assert {sample.meta["direction"] for sample in samples} == {"forward", "reverse"}


@pytest.mark.parametrize(
    ("gold", "text", "similarity", "metric"),
    [
        ("No", "No, it does not", 1.0, 1.0),
        ("No", "Yes", 0.0, 0.0),
        ("No", "Yes and no", 0.0, 0.0),
        ("No", "no or yes", 0.0, 0.0),
        ("No, it splits.", "No.", 1.0, 1.0),
        ("It splits into two boxes", "it splits into two boxes.", 1.0, 1.0),
        ("It splits in two", "two", 0.4, 0.0),
        ("No", " ".join(["no"] * 65), 0.0, 0.0),
    ],
)
def test_video_hallu_offline(gold: str, text: str, similarity: float, metric: float) -> None:
    score = graded("video_hallu", ("Is it so?", gold), said(text))
    assert score.parts["similarity"] == pytest.approx(similarity)
    assert score.metric == metric


def test_video_hallu_empty_and_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    assert graded("video_hallu", ("?", "No"), said("")).reward == 0.0
    seen: list[tuple[str, str, str]] = []

    def judge(question: str, gold: str, answer: str) -> float:
        seen.append((question, gold, answer))
        return float(answer) if answer.replace(".", "").isdigit() else 0.25

    monkeypatch.setattr("mmrl.rewards.custom.judge", judge, raising=False)
    name = "mmrl.rewards.custom:judge"
    score = graded("video_hallu", ("?", "No"), said("perhaps"), similarity=name, judge=name)
    assert (score.parts["similarity"], score.metric) == (0.25, 0.25)
    assert seen == [("?", "No", "perhaps")] * 2
    with pytest.raises(ValueError, match="not a number in"):
        graded("video_hallu", ("?", "No"), said("7"), judge=name)


def test_video_hallu_rejects_records_without_a_question(tmp_path: Path) -> None:
    fields = {"problem": None, "solution": "No", "path": "a.mp4"}
    with pytest.raises(ValueError, match="no question"):
        sample_of("video_hallu", fields, tmp_path)
    with pytest.raises(ValueError, match="words"):
        sample_of("video_hallu", {**fields, "problem": "?", "solution": "..."}, tmp_path)


CLIP = Frame((64, 64), (32, 32), seconds=(10.0, 20.0, 30.0))
MOMENT = Grounded(Choice(("x", "y", "z"), "C"), (Interval(12, 16),))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        # the clip starts at 10 s: 2 to 6 is 12 to 16 of the source
        (f"{said('C')}<glue>[(2, 4)]</glue>", (1.0, 0.5, 1.0)),
        (f"{said('B')}\n<glue>[(2, 6)]</glue>", (0.0, 1.0, 1.0)),
        (f"{said('C')}<glue>[(12, 16)]</glue>", (1.0, 0.0, 1.0)),
        (f"{said('C')}<glue>[(6, 2)]</glue>", (1.0, 0.0, 0.0)),
        (said("C"), (1.0, 0.0, 0.0)),
        (f"<glue>[(2, 6)]</glue>{said('C')}", (0.0, 0.0, 0.0)),
        (f"{said('C')}<glue>[(2, 6)]</glue><glue>[(2, 6)]</glue>", (1.0, 0.0, 0.0)),
        (f"{said('C')}<glue>[(2, 6)]</glue> ok", (1.0, 1.0, 0.0)),
        (f"{said('C')}<glue>[(2, 4), (2, 4), (3, 4)]</glue>", (1.0, 0.5, 1.0)),
    ],
)
def test_grounded_questions(text: str, parts: tuple[float, float, float]) -> None:
    score = graded("grounded_video_qa", MOMENT, text, CLIP)
    found = tuple(score.parts[key] for key in ("accuracy", "iou", "format"))
    if text.startswith("<glue>"):
        assert found[2] == 0.0  # the order is not in form, whatever else is read
    else:
        assert found == pytest.approx(parts)


def test_a_space_in_the_glue_is_refused_by_the_published_pattern_only() -> None:
    text = f"{said('C')}<glue>[ (2, 6)]</glue>"
    assert graded("grounded_video_qa", MOMENT, text, CLIP).reward == pytest.approx(3.0)
    assert graded("grounded_video_qa", MOMENT, text, CLIP, variant="code").reward == 1.0


def test_acc_at_gqa_needs_both() -> None:
    task = load_task("grounded_video_qa")
    texts = [f"{said('C')}<glue>[(2, 10)]</glue>", f"{said('C')}<glue>[(2, 11)]</glue>"]
    scores = [graded("grounded_video_qa", MOMENT, text, CLIP) for text in texts]
    metas = [{"type": "CH", **score.evidence} for score in scores]
    found = task.breakdown([1.0, 1.0], metas)
    assert found["Acc@GQA"] == 0.5
    assert found["mIoP"] == pytest.approx((4 / 8 + 4 / 9) / 2)
    assert found["mIoU"] == pytest.approx((4 / 8 + 4 / 9) / 2) and found["CH"] == 1.0


@pytest.mark.parametrize(
    "changes", [{"glue": []}, {"glue": [[2, 1]]}, {"answer": "(E)"}, {"options": []}]
)
def test_unusable_grounded_gold_raises(changes: Any, tmp_path: Path) -> None:
    fields = {"video": "a.mp4", "question": "?", "options": ["(A) x", "(B) y"], "answer": "(B)",
              "glue": [[1, 2]], **changes}  # fmt: skip
    with pytest.raises(ValueError):
        sample_of("grounded_video_qa", fields, tmp_path)
