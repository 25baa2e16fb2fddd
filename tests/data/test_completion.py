"""What a supervised phase teaches: the record's own completion, in the task's form, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmrl.corpus.completion import is_thoughtless, thought_in
from mmrl.corpus.fields import Fields
from mmrl.data.inspection import Asking
from mmrl.data.sources import Taught
from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, Record

CHOICE = {"problem": "Which?", "problem_type": "multiple choice", "options": ["A. cat", "B. dog"],
          "solution": "<answer>B</answer>"}  # fmt: skip
GEOMETRY = {"problem": "Find x.", "answer": "4"}
THOUGHT = "It barks, so it is a dog."


def completion(task: str, params: dict[str, Any] | None = None, **row: Any) -> str | None:
    loaded = load_task(task, params or {})
    sample = loaded.ask(Record("1", Fields(row), Path("/data")))
    return loaded.completion(sample, Answer(""))


def test_without_one_the_task_writes_its_own() -> None:
    assert completion("vqa_mix", **CHOICE) == "<think></think>\n<answer>B</answer>"


@pytest.mark.parametrize(
    "given",
    [
        {"target": f"<think>{THOUGHT}</think>\n<answer>B</answer>"},
        {"chosen": f"<think>{THOUGHT}</think>\n<answer>B</answer>"},
        {"completion": [
            {"role": "assistant", "content": f"<think>{THOUGHT}</think><answer>B</answer>"}
        ]},
        {"messages": [
            {"role": "user", "content": "Which?"},
            {"role": "assistant", "content": f"<think>{THOUGHT}</think> <answer>B</answer>"},
        ]},
    ],
)  # fmt: skip
def test_a_whole_completion_is_taught_as_it_is(given: dict[str, Any]) -> None:
    text = completion("vqa_mix", **{**CHOICE, **given})
    assert text is not None and THOUGHT in text and "<answer>B</answer>" in text
    assert text.count("<think>") == 1


@pytest.mark.parametrize(
    "given",
    [
        {"cot": THOUGHT},
        {"thought": THOUGHT, "target": "B"},
        {"rationale": THOUGHT, "target": "<answer>B</answer>"},
        {"target": f"<think>{THOUGHT}</think> B"},
        {"target": f"{THOUGHT} <answer>B</answer>"},
        {"target": THOUGHT},
    ],
)
def test_a_thought_is_put_into_the_tasks_form(given: dict[str, Any]) -> None:
    text = completion("vqa_mix", **CHOICE, **given)
    assert text == f"<think>\n{THOUGHT}\n</think>\n<answer>B</answer>"


def test_an_answer_alone_has_no_thought() -> None:
    assert completion("vqa_mix", **CHOICE, target="B") == "<think></think>\n<answer>B</answer>"


@pytest.mark.parametrize("target", ["A", f"<think>{THOUGHT}</think><answer>A</answer>"])
def test_a_completion_that_contradicts_its_gold_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="completion answers 'A', which its gold does not"):
        completion("vqa_mix", **CHOICE, target=target)


def test_boxed_answers_and_solutions_in_prose() -> None:
    steps = r"Since $x + 1 = 5$, we get \boxed{4}."
    assert completion("geometry3k", **GEOMETRY, target=steps) == (
        f"<think>\n{steps}\n</think>\n" + r"\boxed{4}"
    )
    with pytest.raises(ValueError, match="answers '5'"):
        completion("geometry3k", **GEOMETRY, target=r"So \boxed{5}")


@pytest.mark.parametrize("think", ["none", "optional", "required", "opened"])
def test_every_form_of_thinking(think: str) -> None:
    text = completion("vqa_mix", {"think": think}, **CHOICE, cot=THOUGHT)
    assert (
        text
        == {
            "none": "<answer>B</answer>",
            "optional": f"<think>\n{THOUGHT}\n</think>\n<answer>B</answer>",
            "required": f"<think>\n{THOUGHT}\n</think>\n<answer>B</answer>",
            "opened": f"{THOUGHT}\n</think>\n<answer>B</answer>",
        }[think]
    )


def test_a_task_without_targets_takes_what_is_given() -> None:
    params = {"function": "tests.verifiers:abstains"}
    assert completion("custom", params, prompt="q") is None
    assert completion("custom", params, prompt="q", target="red") == "red"
    assert completion("custom", params, prompt="q", target="red", cot="Hm.") == (
        "<think>\nHm.\n</think>\nred"
    )


def test_empty_thoughts_are_counted() -> None:
    task = load_task("vqa_mix")
    taught = Taught(task)
    for row in (CHOICE, {**CHOICE, "cot": THOUGHT}, CHOICE):
        taught(task.ask(Record("1", Fields(row), Path("/data"))))
    assert "2 of 3 targets (67%) have an empty thought" in taught.line("vqa_mix")
    nothing = Asking().ask(Record("1", Fields({"prompt": "q"}), Path("/data")))
    with pytest.raises(ValueError, match="no target, completion, chosen"):
        Taught(Asking())(nothing)


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("<think>a</think>b", "a"),
        ("a</think>b", "a"),
        ("a <answer>b</answer>", "a"),
        ("b", ""),
        (r"\boxed{4}", ""),
        (r"so \boxed{4}", r"so \boxed{4}"),
    ],
)
def test_where_a_thought_stands(text: str, thought: str) -> None:
    assert thought_in(text) == thought


@pytest.mark.parametrize(
    ("text", "thoughtless"),
    [("<think> \n</think>x", True), ("</think>x", True), ("x", False), ("<think>a</think>", False)],
)
def test_what_an_empty_thought_is(text: str, thoughtless: bool) -> None:
    assert is_thoughtless(text) is thoughtless
