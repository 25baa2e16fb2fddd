"""Counting, labels, letters, crowds, charts, typed mixtures: the worked examples and exploits."""

from __future__ import annotations

from typing import Any

import pytest

from mmrl.rewards.choices import Choice
from mmrl.rewards.labels import Label
from mmrl.rewards.typed import TypedGold, typed_metric
from mmrl.scoring.tasks import load_task
from mmrl.tasks.medical_vqa.task import inline_options
from tests.grading import asked, graded, reward

LUNGS = Choice(("heart", "liver", "lung"), "C")
PRIMROSE = Label("pink primrose", ("pink primrose", "daisy"))


def tagged(text: str) -> str:
    return f"<think>1+2</think> <answer>{text}</answer>"


@pytest.mark.parametrize(
    ("text", "strict", "code"),
    [
        (tagged("3"), 2.0, 2.0),
        (tagged("three"), 1.0, 1.0),
        ("<think>it is 3</think><answer>three</answer>", 1.0, 2.0),
        ("3", 0.0, 1.0),
        (tagged("3.0"), 2.0, 2.0),
        (tagged("3 items"), 1.0, 2.0),
        (tagged("2 or 3"), 1.0, 2.0),
        (tagged(""), 0.0, 0.0),
        (tagged("\uff13"), 2.0, 2.0),
        ("9" * 100_000, 0.0, 0.0),
    ],
)
def test_counting(text: str, strict: float, code: float) -> None:
    assert reward("counting", 3, text) == strict
    coded = graded("counting", 3, text, variant="code")
    assert (coded.reward, coded.metric) == (code, graded("counting", 3, text).metric)


def test_counting_reads_both_forms_and_refuses_the_rest() -> None:
    assert asked("counting", {"problem": "?", "solution": "<answer> 3 </answer>"}).gold == 3
    assert asked("counting", {"question": "?", "ground_truth": 0}).gold == 0
    for bad in ("", "three", "-1", "3.5", "<answer></answer>"):
        with pytest.raises(ValueError, match=r"no count|empty"):
            asked("counting", {"problem": "?", "solution": bad})


@pytest.mark.parametrize(
    ("text", "strict", "code"),
    [
        ("Pink_Primrose", 1.0, 1.0),
        ("", 0.0, 1.0),
        ("primrose", 0.0, 1.0),
        ("pink primrose or daisy", 0.0, 1.0),
        ("daisy", 0.0, 0.0),
        ("a pink primrose", 0.0, 1.0),
    ],
)
def test_fine_grained_accuracy(text: str, strict: float, code: float) -> None:
    score = graded("fine_grained", PRIMROSE, tagged(text))
    assert (score.parts["accuracy"], score.metric) == (strict, strict)
    coded = graded("fine_grained", PRIMROSE, tagged(text), variant="code")
    assert (coded.parts["accuracy"], coded.metric) == (code, strict)
    breakdown = load_task("fine_grained").breakdown([0.0], [score.evidence])
    assert breakdown == {"contained": code}


def test_fine_grained_label_sets() -> None:
    row = {"problem": "?", "solution": "<answer> Daisy </answer>"}
    assert asked("fine_grained", row, labels=("daisy", "rose")).gold.labels == ("daisy", "rose")
    assert graded("fine_grained", PRIMROSE, tagged("tulip")).status == "malformed"
    assert graded("fine_grained", Label("daisy"), tagged("tulip")).status == "ok"
    for labels in (["rose"], ["daisy", "Daisy "], ["daisy", ""]):
        with pytest.raises(ValueError, match=r"none of|differ"):
            asked("fine_grained", {**row, "labels": labels})


@pytest.mark.parametrize(
    ("text", "strict", "code"),
    [
        (tagged("C"), 2.0, 2.0),
        (tagged("C) lung"), 2.0, 1.0),
        ("C", 0.0, 1.0),
        (tagged("C)"), 2.0, 1.0),
        (tagged("A or C"), 1.0, 1.0),
        (tagged("lung"), 2.0, 1.0),
    ],
)
def test_medical_vqa(text: str, strict: float, code: float) -> None:
    assert reward("medical_vqa", LUNGS, text) == strict
    assert reward("medical_vqa", LUNGS, text, variant="code") == code


def test_medical_options() -> None:
    assert reward("medical_vqa", LUNGS, tagged("(C) lung")) == 2.0
    assert reward("medical_vqa", LUNGS, tagged("C) liver")) == 1.0
    assert inline_options("Which? A) MRI, B) CT scan, C) X-ray") == ("MRI", "CT scan", "X-ray")
    assert inline_options("Vitamin B: what?\nA. yes\nB. no") == ("yes", "no")
    for problem, letter in (("no options", "A"), ("A) x, C) y", "A"), ("A) x, B) y", "C")):
        with pytest.raises(ValueError, match=r"in order|names none"):
            asked("medical_vqa", {"problem": problem, "solution": letter})


@pytest.mark.parametrize(
    ("text", "strict", "code"),
    [
        (tagged("100"), 2.5, 2.5),
        (tagged("140"), 2.1, 2.1),
        (tagged("151"), 1.0, 1.0),
        (tagged(" 100 "), 2.5, 0.0),
        (tagged("100.0"), 2.5, 0.0),
        (tagged("-100"), 1.0, 0.0),
        (tagged("1e2"), 1.0, 0.0),
        (tagged("99999999"), 1.0, 1.0),
    ],
)
def test_crowd_counting(text: str, strict: float, code: float) -> None:
    assert reward("crowd_counting", 100, text) == pytest.approx(strict)
    assert reward("crowd_counting", 100, text, variant="code") == pytest.approx(code)


def test_crowd_counting_gold_of_zero() -> None:
    assert graded("crowd_counting", 0, tagged("0")).parts["count"] == 1.5
    assert graded("crowd_counting", 0, tagged("0"), variant="code").parts["count"] == 0.0
    with pytest.raises(ValueError, match="no count"):
        asked("crowd_counting", {"problem": "?", "solution": "many"})


def test_crowd_errors_count_every_record() -> None:
    task = load_task("crowd_counting")
    texts = {100: tagged("90"), 10: tagged("10"), 50: "I do not know", 30: None}
    metas, values = [], []
    for count, text in texts.items():
        meta: dict[str, Any] = {"count": count}
        if text is not None:
            score = graded("crowd_counting", count, text)
            meta |= score.evidence
            assert score.metric == abs(meta["predicted"] - count)
        metas.append(meta)
        values.append(0.0)
    assert task.aggregate(values, metas) == (10 + 0 + 50 + 30) / 4
    breakdown = task.breakdown(values, metas)
    assert breakdown["rmse"] == pytest.approx(((100 + 2500 + 900) / 4) ** 0.5)
    assert breakdown["exact"] == 0.25


@pytest.mark.parametrize(
    ("gold", "text", "accuracy", "coded"),
    [
        ("100", "104", 1, 1), ("100", "105", 1, 1), ("100", "106", 0, 0), ("100", "95", 1, 1),
        ("100", "-104", 0, 0), ("0", "0.0", 1, 0), ("0", "0", 1, 1), ("0", "0.01", 0, 0),
        ("2010", "2011", 0, 1), ("2010", "2010", 1, 1), ("2010", "2110", 0, 1),
        ("10%", "0.1", 1, 1), ("10%", "10", 1, 0), ("2", "2%", 1, 0), ("16.7%", "0.167", 1, 1),
        ("2", "0.02", 0, 0),
        ("16.7%", "**16.7 %**", 1, 0), ("$5", "5 dollars", 1, 0), ("5 kg", "5 cm", 0, 0),
        ("1,000", "1040", 1, 1),
        ("Blue", "blue", 1, 1), ("Blue", "not blue", 0, 0), ("100", "104 or 50", 0, 0),
        ("100", "inf", 0, 0), ("100", "NaN", 0, 0), ("Yes", "", 0, 0),
    ],
)  # fmt: skip
def test_chart_qa(gold: str, text: str, accuracy: int, coded: int) -> None:
    assert graded("chart_qa", gold, tagged(text)).parts["accuracy"] == accuracy
    as_published = graded("chart_qa", gold, tagged(text), variant="code")
    assert (as_published.parts["accuracy"], as_published.metric) == (coded, coded)


def test_chart_qa_metric_is_the_benchmarks() -> None:
    score = graded("chart_qa", "2010", tagged("2011"))
    assert (score.parts["accuracy"], score.metric) == (0.0, 1.0)
    assert asked("chart_qa", {"question": "?", "answer": ["14"]}).gold == "14"
    for answer in ("", [], ["1", "2"]):
        with pytest.raises(ValueError, match=r"empty|labels"):
            asked("chart_qa", {"question": "?", "answer": answer})


YES = TypedGold("yes/no", "yes")


@pytest.mark.parametrize(
    ("gold", "text", "value"),
    [
        (YES, "Yes.", 1.0), (YES, "I do not know", 0.0), (YES, "no", 0.0), (YES, "yes or no", 0.0),
        (TypedGold("OCR", "hello world"), "hello word", 0.5),
        (TypedGold("OCR", "hello world"), "a b c d e f", 0.0),
        (TypedGold("regression", "10"), "8", 0.8),
        (TypedGold("regression", "10"), "1e20", 0.0),
        (TypedGold("regression", "10"), "NaN", 0.0),
        (TypedGold("numerical", "3"), "3.0", 1.0), (TypedGold("numerical", "3"), "3.01", 0.0),
        (TypedGold("numerical", "3"), "3 or 4", 0.0),
        (TypedGold("multiple choice", "B", ("x", "y")), "B", 1.0),
        (TypedGold("multiple choice", "B", ("x", "y")), "y", 1.0),
        (TypedGold("multiple choice", "dog", ("A. cat", "B. dog")), "B", 1.0),
        (TypedGold("multiple choice", "A\u3001C", ("x", "y", "z")), "C, A", 1.0),
        (TypedGold("multiple choice", "A\u3001C", ("x", "y", "z")), "A", 0.0),
        (TypedGold("numerical", "1/2"), "0.5", 1.0), (TypedGold("numerical", "5 km/h"), "5", 1.0),
        (TypedGold("numerical", "5 km/h"), "5 m/s", 0.0), (TypedGold("numerical",
        "1 1/4"), "5/4", 1.0),
        (TypedGold("OCR", "caf\u00e9"), "cafe\u0301", 1.0), (TypedGold("OCR",
        "fine print"), "\ufb01ne print", 1.0),
        (TypedGold("OCR", "ABC 123"), "\uff21\uff22\uff23\u3000\uff11\uff12\uff13", 1.0),
        (TypedGold("OCR", "don't stop"), "don\u2019t stop", 1.0), (TypedGold("OCR",
        "Stop"), "stop", 0.0),
        (TypedGold("OCR", "\u4f60\u597d\u4e16\u754c"), "\u4f60\u597d\u4eba\u754c", 0.75),
        (TypedGold("OCR", "x2"), "x\u00b2", 0.0),
        (TypedGold("free-form",
        "\u4e00\u8f86\u7ea2\u8272\u7684\u6c7d\u8f66"),
        "\u4e00\u8f86\u7ea2\u8272\u7684\u6c7d\u8f66", 1.0),
        (TypedGold("free-form", "na\u00efve"), "na ve", 0.0), (YES, "**Yes**", 1.0),
        (TypedGold("free-form", "the cat sat"), "the cat ran", (2 / 3 + 1 / 2 + 2 / 3) / 3),
        (TypedGold("free-form", "the cat sat"), "...", 0.0),
    ],
)  # fmt: skip
def test_vqa_mix(gold: TypedGold, text: str, value: float) -> None:
    assert graded("vqa_mix", gold, tagged(text)).parts["accuracy"] == pytest.approx(value)


def test_vqa_mix_as_coded_and_its_metric() -> None:
    three = TypedGold("numerical", "3")
    assert graded("vqa_mix", three, tagged("3.0"), variant="code").parts["accuracy"] == 0.0
    assert graded("vqa_mix", three, tagged("3"), variant="code").parts["accuracy"] == 1.0
    decimal = TypedGold("numerical", "2.0")
    for text, value in (("2", 0.0), ("2.0", 1.0)):
        coded = graded("vqa_mix", decimal, tagged(text), variant="code")
        assert coded.parts["accuracy"] == value
    # mean relative accuracy below, not at, each threshold: 0.2 is below 0.5 ... 0.25
    assert typed_metric("8", TypedGold("regression", "10")) == 0.6
    assert typed_metric("x", TypedGold("regression", "10")) == 0.0


@pytest.mark.parametrize(
    "change",
    [{"solution": ""}, {"solution": "<answer> </answer>"}, {"solution": "x"},
     {"problem_type": "poem"}, {"problem_type": "yes/no"}, {"problem_type": "free-form",
      "solution": "?!"}, {"problem_type": "multiple choice", "options": ["A. x"], "solution": "B"}],
)  # fmt: skip
def test_vqa_mix_refuses_golds_that_are_not_of_their_type(change: dict[str, Any]) -> None:
    row = {"problem": "?", "problem_type": "numerical", "solution": "3", **change}
    with pytest.raises(ValueError, match=r"empty|is no|unknown problem type|names none"):
        asked("vqa_mix", row)


def test_vqa_mix_dispatches_by_record() -> None:
    row = {"problem": "?", "options": ["A. x", "B. y"], "solution": "<answer>B</answer>"}
    sample = asked("vqa_mix", {**row, "problem_type": "multiple choice"})
    assert sample.gold == TypedGold("multiple choice", "B", ("x", "y"))
    assert "(B) y" in sample.parts[0].text  # type: ignore[union-attr]
    assert asked("vqa_mix", {**row, "problem_type": "free-form"}).gold.options == ()
