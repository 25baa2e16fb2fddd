"""MathVista, MATH-Vision and MathVerse: typed golds, strict rewards, official readings."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import pytest

from mmrl.rewards.choices import Choice
from mmrl.rewards.math_answers import Formula, Phrase
from mmrl.scoring.tasks import load_task
from mmrl.tasks.math_vision.official import extract
from mmrl.tasks.mathvista.task import Typed
from mmrl.types import Answer, MediaRef
from tests.grading import asked, graded, real_data, reward

INTEGER, FLOAT = Typed("integer", "1000"), Typed("float", "1.2", 1)
LIST, SHAPES = Typed("list", "[1, 2.5]"), Choice(("circle", "square", "triangle"), "B")


def tagged(text: str) -> str:
    return f"<think>hm</think> <answer>{text}</answer>"


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        (INTEGER, "1000.0", True), (INTEGER, "1,000", True), (INTEGER, "1000.4", False),
        (INTEGER, "10^3", False), (INTEGER, "\uff11\uff10\uff10\uff10", True),
        (FLOAT, "1.24", True), (FLOAT, "1.26", False), (FLOAT, "1.2 cm", False),
        (FLOAT, "inf", False), (FLOAT, "1.1 or 1.2", False),
        (LIST, "[1, 2.5]", True), (LIST, "[1.0,2.50]", True), (LIST, "[2.5, 1]", False),
        (LIST, "[[1, 2.5]]", False), (LIST, "[1, 2.5, 3]", False), (LIST, "1, 2.5", False),
        (LIST, "[]", False), (LIST, '["1", "2.5"]', False),
        (SHAPES, "B", True), (SHAPES, "(B)", True), (SHAPES, "square", True),
        (SHAPES, "sq", False), (SHAPES, "A, B, C", False),
    ],
)  # fmt: skip
def test_mathvista_is_strict(gold: Any, text: str, right: bool) -> None:
    score = graded("mathvista", gold, tagged(text))
    assert (score.parts["accuracy"], score.metric) == (right, right)


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        (INTEGER, "1000.0", True), (INTEGER, "1000.9", True), (INTEGER, "nan", False),
        (INTEGER, "1e400", False), (FLOAT, "1.24", True), (FLOAT, "1.26", False),
        (LIST, "[1, 2.5]", True), (LIST, "[1,2.5]", False),
        (Choice(("x", "long"), "A"), "", False), (SHAPES, "(b) a square", True),
        (SHAPES, "sqare", True), (SHAPES, "", False),
        (SHAPES, 'So: The answer is "square".', True), (SHAPES, "(C)", False),
    ],
)  # fmt: skip
def test_mathvista_official_reading(gold: Any, text: str, right: bool) -> None:
    score = graded("mathvista", gold, text, extractor="official")
    assert (score.metric, score.reward) == (right, 0.0)


def test_mathvista_reads_the_published_file(tmp_path: Any) -> None:
    row = {
        "question": "?", "image": "images/1.jpg", "choices": None, "unit": "cm", "precision": 1.0,
        "answer": "1.2", "question_type": "free_form", "answer_type": "float", "pid": "7",
        "metadata": {"task": "t", "skills": ["a", "b"]},
    }  # fmt: skip
    path = tmp_path / "testmini.json"
    path.write_text(json.dumps({"7": row}))
    task = load_task("mathvista")
    (record,) = task.records(path)
    sample = task.sample(record)
    assert (record.id, sample.gold) == ("7", Typed("float", "1.2", 1))
    assert "one decimal place" in sample.parts[-1].text  # type: ignore[union-attr]
    assert task.breakdown([1.0], [sample.meta])["skills/b"] == 1.0


@pytest.mark.parametrize(
    "change",
    [{"answer": "x"}, {"answer": ""}, {"answer_type": "text"}, {"answer": "nan"},
     {"question_type": "multi_choice", "choices": ["a", "b"]},
     {"question_type": "multi_choice", "choices": ["1.2", "1.2"]}],
)  # fmt: skip
def test_mathvista_refuses_golds_that_do_not_fit(change: dict[str, Any]) -> None:
    row = {"question": "?", "precision": 1, "answer": "1.2", "question_type": "free_form",
           "answer_type": "float", **change}  # fmt: skip
    with pytest.raises(ValueError, match=r"not of type|of type|options"):
        asked("mathvista", row)


@pytest.mark.parametrize(
    ("response", "extracted"),
    [
        (r"so \boxed{3} or rather \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{x = 5 \text{ km}}", "5{}"), ("The answer is (C).", "c"),
        ("I think the answer is 42", "42"), ("B\nbecause", "b"), (r"\boxed{90^{\circ}}", "90"),
        (r"\boxed{12", "12"), ("", ""), (r"\boxed{(D)}", "d"),
    ],
)  # fmt: skip
def test_math_vision_official_extraction(response: str, extracted: str) -> None:
    assert extract(response) == extracted


def test_math_vision_letter_value_and_verdicts() -> None:
    gold = Choice(("2", "$\\frac{1}{4}$", "7"), "B")
    boxed = "<think></think> \\boxed{%s}"
    assert reward("math_vision", gold, boxed % "B") == 2.0
    assert reward("math_vision", gold, boxed % r"\dfrac{1}{4}") == 2.0
    official = graded("math_vision", gold, boxed % "0.25", extractor="official")
    assert (official.metric, official.parts["accuracy"]) == (1.0, 1.0)
    assert graded("math_vision", gold, "The answer is 2", extractor="official").metric == 0.0
    assert reward("math_vision", Formula("$\\sqrt{2}$"), boxed % r"\sqrt{2}") == 2.0
    assert reward("math_vision", Formula("$\\sqrt{2}$"), boxed % "1.41") == 1.0
    rounded = graded("math_vision", Formula("$\\sqrt{2}$"), boxed % "1.41", extractor="official")
    assert rounded.metric == 1.0
    assert reward("math_vision", Formula("8"), boxed % "__import__('os')") == 1.0


def test_math_vision_records_are_all_askable() -> None:
    path = real_data("mathllm__MATH-V/data/testmini.jsonl")
    task = load_task("math_vision")
    samples = [task.sample(record) for record in task.records(path)]
    kinds = Counter(type(sample.gold) for sample in samples)
    assert (kinds[Choice], kinds[Formula] + kinds[Phrase]) == (190, 114)
    official = load_task("math_vision", {"extractor": "official"})
    for sample in samples[::4]:
        score = official.score(sample.gold, Answer(str(sample.target)))
        assert (score.parts, score.metric) == ({"accuracy": 1.0, "format": 1.0}, 1.0), sample
        assert official.score(sample.gold, Answer("no")).metric == 0.0


def test_mathverse_versions() -> None:
    row = {"sample_index": "9", "question": "?\nChoices:\nA:6\nB:7", "answer": "B",
           "image": "a.png", "question_type": "multi-choice", "problem_version": "Text Lite",
           "metadata": {"subject": "Plane Geometry", "subfield": "Length"}}  # fmt: skip
    sample = asked("mathverse", row)
    assert sample.gold == Choice(("6", "7"), "B") and isinstance(sample.parts[0], MediaRef)
    text_only = asked("mathverse", {**row, "problem_version": "Text Only"})
    assert not any(isinstance(part, MediaRef) for part in text_only.parts)
    hidden = asked("mathverse", {**row, "question": "", "answer": "D"})
    assert hidden.gold == Choice(tuple("ABCD"), "D")
    with pytest.raises(ValueError, match="names none of 2"):
        asked("mathverse", {**row, "answer": "C"})
    breakdown = load_task("mathverse").breakdown([1.0, 0.0], [sample.meta, text_only.meta])
    assert breakdown["problem_version/Text Lite"] == 1.0
    assert breakdown["subject/Plane Geometry"] == 0.5


def test_mathverse_values() -> None:
    assert reward("mathverse", Formula("10cm"), tagged("10")) == 2.0
    assert reward("mathverse", Formula("10cm"), tagged("10m")) == 1.0
    assert reward("mathverse", Phrase("parallel"), tagged("Parallel.")) == 2.0
    assert reward("mathverse", Phrase("parallel"), tagged("not parallel")) == 1.0
    assert reward("mathverse", Formula("9\\pi"), tagged("28.27"), relative_tolerance=0.01) == 2.0


def test_long_responses_are_read_in_linear_time() -> None:
    for unit in ("oxed{", "the answer is ", "(a", "{", "is 1", r"\text"):
        text = unit * (500_000 // len(unit))
        for task, gold in (("math_vision", Formula("5")), ("mathvista", SHAPES)):
            started = time.process_time()
            graded(task, gold, text, extractor="official")
            assert time.process_time() - started < 2.0, (task, unit)
