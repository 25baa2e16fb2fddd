from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmrl.errors import UserError
from mmrl.scoring.tasks import fixture_path, load_task, resolve_weights, weigh
from mmrl.task import Task
from mmrl.types import Answer, MediaRef, Record, Score, Text

ROOT221 = r"2\sqrt{221}"


def reward(gold: str, text: str, weights: dict[str, float] | None = None, **params: Any) -> float:
    task = load_task("geometry3k", params)
    score = weigh(task.score(gold, Answer(text)), resolve_weights(task, weights or {}))
    assert score.reward is not None
    return score.reward


@pytest.mark.parametrize(
    ("gold", "text", "expected"),
    [
        (ROOT221, rf"<think>Pythagoras.</think> \boxed{{{ROOT221}}}", 1.0),
        ("48", r"\boxed{48}", 0.9),
        (ROOT221, r"<think>About.</think> \boxed{29.73}", 0.1),
        # the same value written otherwise
        (ROOT221, r"<think></think>\boxed{\sqrt{884}}", 1.0),
        ("140°", r"<think></think>\boxed{140}", 1.0),
        ("10", r"<think></think>\boxed{10\%}", 0.1),
        # a number that only the thought contains
        ("3", r"<think>3 spheres, \boxed{3} left</think> \boxed{}", 0.0),
        # hedging
        ("5", r"<think></think> \boxed{5} \boxed{7}", 0.0),
        ("5", r"<think></think> \boxed{5 \text{ or } 7}", 0.1),
        ("5", r"<think></think> \boxed{\pm 5}", 0.1),
        # half-open regions
        ("5", r"<think>so \boxed{5}", 0.0),
        ("5", r"<think></think> \boxed{5", 0.0),
        ("5", r"<think></think> \boxed{\boxed{5}}", 0.0),
    ],
)
def test_worked_examples(gold: str, text: str, expected: float) -> None:
    assert reward(gold, text) == pytest.approx(expected)


def test_r1v_variant_halves_the_weights_and_reads_tags() -> None:
    weights = {"accuracy": 0.5, "format": 0.5}
    right = "<think>a</think><answer>140</answer>"
    assert reward("140°", right, weights, answer="tag") == 1.0
    assert reward("140°", "<answer>140</answer>", weights, answer="tag") == 0.5
    assert reward("140°", "<think>140</think><answer>\n</answer>", weights, answer="tag") == 0.0


def test_hard_format_pays_accuracy_only_in_form() -> None:
    assert reward("48", r"\boxed{48}", hard_format=True) == 0.0
    assert reward("48", r"<think></think>\boxed{48}", hard_format=True) == 1.0


def test_metric_is_accuracy_and_status_is_apart() -> None:
    task = load_task("geometry3k")
    cut = task.score("48", Answer("<think>so far", truncated=True))
    assert cut == Score({"accuracy": 0.0, "format": 0.0}, 0.0, "truncated", cut.reason)
    assert task.score("48", Answer(r"\boxed{48}")).metric == 1.0
    assert task.score("48", Answer(r"\boxed{1 2}")).status == "malformed"


def problem(**changes: Any) -> dict[str, Any]:
    fields = {
        "problem_text": "Find y.",
        "choices": ["5", r"5 \sqrt { 2 }", r"5 \sqrt { 3 }", "10"],
        "compact_choices": ["5", r"5\sqrt{2}", r"5\sqrt{3}", "10"],
        "precise_value": [5.0, 7.0710678118654755, 8.660254037844386, 10.0],
        "rough_value": [5, 7.1, 8.7, 10],
        "answer": "C",
        "unit": "",
    }
    return {**fields, **changes}


def write_problem(folder: Path, **changes: Any) -> None:
    folder.mkdir()
    (folder / "data.json").write_text(json.dumps(problem(**changes)))
    picture = fixture_path("geometry3k").with_name("images") / "chord.png"
    (folder / "img_diagram.png").write_bytes(picture.read_bytes())


def test_problem_folders_are_read_in_numeric_order(tmp_path: Path) -> None:
    for name in ("10", "9", "100"):
        write_problem(tmp_path / name)
    task = load_task("geometry3k")
    records = list(task.records(tmp_path))
    assert [record.id for record in records] == ["9", "10", "100"]
    sample = task.sample(records[0])
    image, question, instruction = sample.parts
    assert image == MediaRef("image", tmp_path / "9" / "img_diagram.png")
    assert question == Text("Find y.")
    assert isinstance(instruction, Text) and r"\boxed{}" in instruction.text


def test_gold_of_a_problem_folder_is_the_letters_precise_value(tmp_path: Path) -> None:
    write_problem(tmp_path / "15")
    task = load_task("geometry3k")
    (record,) = task.records(tmp_path)
    sample = task.sample(record)
    assert float(sample.gold) == pytest.approx(8.660254037844386, abs=1e-11)
    assert sample.target is not None and r"5\sqrt{3}" in sample.target
    for answer, metric in ((r"5\sqrt{3}", 1.0), ("C", 0.0), ("8.66", 0.0), ("8.660254", 1.0)):
        assert task.score(sample.gold, Answer(rf"\boxed{{{answer}}}")).metric == metric


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": "E"},
        {"answer": ""},
        {"answer": None},
        {"answer": "D", "precise_value": [1.0]},
        {"precise_value": [1.0, 2.0, None, 4.0]},
        {"precise_value": [1.0, 2.0, float("nan"), 4.0]},
        {"image": "../secret.png"},
        {"image": "/etc/passwd"},
    ],
)
def test_unusable_problem_raises_value_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    fields = {"image": "a.png", **problem(**changes)}
    with pytest.raises(ValueError):
        load_task("geometry3k").sample(Record("1", fields, tmp_path))


@pytest.mark.parametrize(
    "fields",
    [
        {"problem": "<image> and <image>", "images": ["a.png"], "answer": "5"},
        {"problem": "<image>Find x.", "images": ["a.png"], "answer": ""},
        {"problem": "<image>Find x.", "images": ["a.png"], "answer": "see the figure"},
        {"problem": "<image>Find x.", "images": ["a.png"], "answer": "9^{9^{9^9}}"},
        {"problem": "<image>Find x.", "images": [7], "answer": "5"},
    ],
)
def test_unusable_record_raises_value_error(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        load_task("geometry3k").sample(Record("1", fields, tmp_path))


def test_images_stand_where_their_placeholders_stand(tmp_path: Path) -> None:
    task: Task = load_task("geometry3k")
    fields = {"problem": "A <image> b <image>", "images": [{"bytes": b"1"}, "c.png"], "answer": "5"}
    first, image, second, other, _ = task.sample(Record("1", fields, tmp_path)).parts
    assert (first, second) == (Text("A "), Text(" b "))
    assert (image, other) == (MediaRef("image", b"1"), MediaRef("image", tmp_path / "c.png"))


def test_parameters_are_checked() -> None:
    with pytest.raises(UserError, match="did you mean 'percent'"):
        load_task("geometry3k", {"percents": "value"})
    with pytest.raises(UserError, match=r"'percent'.*'match'"):
        load_task("geometry3k", {"percent": "sometimes"})
