from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mmrl.rewards.call_match import AllowedCall, ExactCall, accept_all, graded_match
from mmrl.rewards.calls import Call
from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, Record, Score

AREA = {
    "name": "g.area",
    "parameters": {
        "type": "dict",
        "properties": {
            "w": {"type": "float"}, "n": {"type": "integer"}, "unit": {"type": "string"},
            "xs": {"type": "array", "items": {"type": "float"}}, "on": {"type": "boolean"},
            "names": {"type": "array", "items": {"type": "string"}}, "d": {"type": "dict"},
            "ds": {"type": "array", "items": {"type": "dict"}},
        },
        "required": [],
    },
}  # fmt: skip


def toolrl(truth: str) -> Record:
    prompt = [{"role": "system", "content": "Tools."}, {"role": "user", "content": "Go."}]
    return Record("1", {"prompt": prompt, "reward_model": {"ground_truth": truth}}, Path())


def lines(*calls: tuple[str, dict[str, Any]]) -> str:
    rows = [json.dumps({"name": name, "parameters": arguments}) for name, arguments in calls]
    return "<tool_call>\n" + "\n".join(rows) + "\n</tool_call>"


def grade(truth: str, text: str, **params: Any) -> Score:
    task = load_task("tool_calls", params)
    return task.score(task.sample(toolrl(truth)).gold, Answer(text))


GOLD = lines(("A", {"x": 1, "y": 2}))
BOGUS = [("B", {}), ("C", {}), ("D", {})]
THINK = "<think>t</think>\n"


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([("A", {"x": 1, "y": 2})], 3.0),
        ([("A", {"x": 1, "y": 9})], 1.5),
        ([("A", {"x": 1, "y": 2}), *BOGUS], 1.875),
        # hand-worked: names 0 of 2
        ([("B", {"x": 1, "y": 2})], -3.0),
        # 1 + (1/3 argument names) + 0 right values of 4
        ([("A", {"y": 9, "z": 1})], 6 * (1 + 1 / 3) / 4 - 3),
        # "2" is not 2, true is not 1, 1.0 is 1
        ([("A", {"x": 1, "y": "2"})], 1.5),
        ([("A", {"x": True, "y": 2})], 1.5),
        ([("A", {"x": 1.0, "y": 2})], 3.0),
        # the better namesake counts, once; names overlap 1 of 2
        ([("A", {"x": 7, "y": 7}), ("A", {"x": 1, "y": 2})], 6 * 3.5 / 4 - 3),
    ],
)
def test_toolrl_worked_examples(calls: list[tuple[str, dict[str, Any]]], expected: float) -> None:
    score = grade(GOLD, THINK + lines(*calls))
    assert score.parts["correctness"] == pytest.approx(expected)
    assert score.parts["format"] == 1.0
    assert score.metric == (expected == 3.0)


def test_values_may_be_compared_as_texts() -> None:
    text = THINK + lines(("A", {"x": "1", "y": 2}))
    assert grade(GOLD, text).metric == 0
    assert grade(GOLD, text, values="text").parts["correctness"] == 3


def test_order_does_not_matter_and_every_call_counts_once() -> None:
    a, b = ("A", {"x": 1}), ("A", {"x": 2})
    assert grade(lines(a, b), THINK + lines(b, a)).parts["correctness"] == 3
    twice = grade(lines(a, b), THINK + lines(a, a))
    assert twice.metric == 0
    # names 1, first 2 of 2, its double: argument names only, of 1 + 2 + 2
    assert twice.parts["correctness"] == pytest.approx(6 * (1 + 2 + 1) / 5 - 3)


def test_a_call_serves_one_gold_only() -> None:
    gold = lines(("A", {"x": 1}), ("A", {"x": 1}))
    score = grade(gold, THINK + lines(("A", {"x": 1}), ("A", {"x": 9})))
    assert score.metric == 0
    assert score.parts["correctness"] == pytest.approx(6 * (1 + 2 + 1) / 5 - 3)
    nested = lines(("A", {"x": {"k": 1}}))
    assert grade(nested, THINK + lines(("A", {"x": {"k": 1, "z": 2}}))).metric == 0
    assert grade(nested, THINK + lines(("A", {"x": {"k": True}}))).metric == 0
    assert grade(nested, THINK + lines(("A", {"x": {"k": 1.0}}))).metric == 1


def test_rows_without_a_tool() -> None:
    gold = "<think> x </think>\n<response> What? </response>"
    quiet, call = THINK + "<response>Which?</response>", THINK + GOLD
    assert dict(grade(gold, quiet).parts) == {"correctness": 3.0, "format": 1.0}
    assert dict(grade(gold, call).parts) == {"correctness": -3.0, "format": 0.0}
    assert grade(gold, call, no_tool="zero").parts["correctness"] == 0
    assert grade(gold, quiet, no_tool="zero").parts["correctness"] == 0
    assert grade(gold, "Which?").parts["correctness"] == -3


@pytest.mark.parametrize(
    ("gold", "text", "formed"),
    [
        (GOLD, THINK + GOLD, 1), (GOLD, GOLD, 0), (GOLD, THINK + GOLD + " ok", 0),
        (GOLD, THINK + GOLD + "\n<response>r</response>", 0),
        (GOLD + "<response>a</response>", THINK + GOLD + "\n<response>r</response>\n", 1),
        (GOLD + "<response>a</response>", THINK + GOLD, 0),
        (GOLD + "<response>a</response>", THINK + "<response>r</response>" + GOLD, 0),
        (GOLD, f"<think>{GOLD}</think>\n{GOLD}", 1),
    ],
)  # fmt: skip
def test_format_is_the_template_of_the_gold(gold: str, text: str, formed: int) -> None:
    score = grade(gold, text)
    assert score.parts["format"] == formed
    assert score.parts["correctness"] == 3


@pytest.mark.parametrize(
    "text",
    [
        "", "A(x=1, y=2)", THINK, THINK + GOLD + GOLD, THINK + "<tool_call></tool_call>",
        THINK + "<tool_call>\n[]\n</tool_call>", THINK + GOLD[:-3], f"<think>{GOLD}",
        THINK + GOLD.replace("1", "NaN"), THINK + GOLD.replace("1", "9" * 5000),
        THINK + "<tool_call>" + "[" * 9000 + "</tool_call>",
        THINK + "<tool_call>\n" + '{"name": "A", "parameters": {"x": 1, "y": 2}}\n' * 40,
        THINK + '<tool_call>{"name": "A", "parameters": {"x": 1, "x": 5, "y": 2}}</tool_call>',
        THINK + "<tool_call>ok</tool_call><response>r</response>",
        f"<think>a</think><think>b</think>{GOLD}",
    ],
)  # fmt: skip
def test_the_unreadable_is_worth_the_least(text: str) -> None:
    score = grade(GOLD, text)
    assert dict(score.parts) == {"correctness": -3.0, "format": 0.0}
    assert score.metric == 0 and score.status != "ok"


def bfcl(allowed: dict[str, Any], **values: Any) -> bool:
    fields = {
        "question": [[{"role": "user", "content": "Go."}]],
        "function": [AREA],
        "ground_truth": [{"g.area": allowed}],
    }
    task = load_task("tool_calls")
    gold = task.sample(Record("simple_0", fields, Path())).gold
    return task.score(gold, Answer(THINK + lines(("g.area", values)))).metric == 1.0


@pytest.mark.parametrize(
    ("allowed", "values", "expected"),
    [
        ({"n": [3]}, {"n": 3}, True), ({"n": [3]}, {"n": 3.0}, False),
        ({"n": [3]}, {"n": "3"}, False),
        ({"n": [1]}, {"n": True}, False), ({"on": [True]}, {"on": 1}, False),
        ({"w": [3.0]}, {"w": 3}, True), ({"w": [3.0]}, {"w": 3.1}, False),
        ({"xs": [[1.0, 2.0]]}, {"xs": [1, 2]}, False),
        ({"xs": [[1.0, 2.0]]}, {"xs": [1.0, 2.0]}, True),
        ({"xs": [[1.0, 2.0]]}, {"xs": [2.0, 1.0]}, False),
        ({"unit": ["New York, NY"]}, {"unit": "new york ny"}, True),
        ({"unit": ["cm", ""]}, {}, True), ({"unit": ["cm"]}, {}, False),
        ({"unit": ["cm", ""]}, {"unit": "mm"}, False), ({"n": [3]}, {"n": 3, "unit": "cm"}, False),
        ({"n": [3]}, {"n": 3, "zz": 1}, False),
        ({"names": [["Ann", "Bo"]]}, {"names": ["ann", "B.o"]}, True),
        ({"names": [["Ann", "Bo"]]}, {"names": ["Ann"]}, False),
        # the name of a variable in place of a number, as some golds have it
        ({"n": ["dataset_size"]}, {"n": "dataset_size"}, True),
        ({"n": ["dataset_size"]}, {"n": "Dataset size"}, False),
        ({"d": [{"k": ["v"], "o": [1, ""]}]}, {"d": {"k": "V"}}, True),
        ({"d": [{"k": ["v"], "o": [1]}]}, {"d": {"k": "v"}}, False),
        ({"d": [{"k": ["v"]}]}, {"d": {"k": "v", "z": 1}}, False),
        ({"ds": [[{"k": [1]}, {"k": [2]}]]}, {"ds": [{"k": 1}, {"k": 2}]}, True),
        ({"ds": [[{"k": [1]}, {"k": [2]}]]}, {"ds": [{"k": 2}, {"k": 1}]}, False),
    ],
)  # fmt: skip
def test_bfcl_value_rules(allowed: dict[str, Any], values: dict[str, Any], expected: bool) -> None:
    assert bfcl(allowed, **values) == expected


def test_a_required_argument_may_not_be_left_out() -> None:
    call = AllowedCall("f", {"a": [1, ""]}, {"a": ("integer", "")}, required=("a",))
    assert not call.accepts(Call("f"))
    assert call.accepts(Call("f", {"a": 1}))


def test_matching_by_hand() -> None:
    assert graded_match([], []) == 1 and graded_match([], [Call("f")]) == 0
    assert graded_match([ExactCall("f", {})], []) == 0
    assert accept_all([], []) and not accept_all([], [Call("f")])


def data(*parts: str) -> Path:
    path = Path(os.environ.get("MMRL_TEST_DATA", "")).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"MMRL_TEST_DATA does not hold {parts[0]}")
    return path


@pytest.mark.parametrize("answer", ["tags", "python"])
def test_real_toolrl_rows(answer: str) -> None:
    pytest.importorskip("pyarrow")
    path = data("qiancheng0__ToolRL", "dataset/rlla_4k/test.parquet")
    task = load_task("tool_calls", {"answer": answer})
    calls = 0
    for record in task.records(path):
        try:
            sample = task.sample(record)
        except ValueError as error:
            assert answer == "python" and "no Python names" in str(error)
            continue
        calls += len(sample.gold.calls)
        prompt = f"{sample.system}\n{sample.parts[0].text}"  # type: ignore[union-attr]
        assert "Steps for Each Turn" not in prompt
        if answer == "tags":
            truth = record.fields["reward_model"]["ground_truth"]
            own = task.score(sample.gold, Answer(truth))
            assert dict(own.parts) == {"correctness": 3.0, "format": 1.0}, record.id
        else:
            assert task.score(sample.gold, Answer(str(sample.target))).metric == 1.0, record.id
        assert task.score(sample.gold, Answer(prompt)).metric == 0.0
    assert calls > (40 if answer == "tags" else 10)


@pytest.mark.parametrize(
    "category", ["simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance"]
)
def test_real_bfcl_records(category: str) -> None:
    folder = data("ShishirPatil__gorilla", "berkeley-function-call-leaderboard/bfcl_eval/data")
    tags, python = load_task("tool_calls"), load_task("tool_calls", {"answer": "python"})
    started, count = time.process_time(), 0
    for record in tags.records(folder / f"BFCL_v4_{category}.json"):
        for task in (tags, python):
            sample = task.sample(record)
            score = task.score(sample.gold, Answer(str(sample.target)))
            assert (score.metric, score.parts["correctness"]) == (1.0, 3.0), record.id
            assert sample.meta["category"] == category
        if category != "irrelevance":
            assert tags.score(sample.gold, Answer(THINK + "<response>no</response>")).metric == 0
            assert tags.score(sample.gold, Answer(THINK + lines(("f", {})))).metric == 0
        count += 1
    assert count >= 200 and time.process_time() - started < 60


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"prompt": [], "reward_model": {"ground_truth": GOLD}},
        {"prompt": [{"role": "user", "content": "q"}], "reward_model": {"ground_truth": "x"}},
        {"prompt": [{"role": "user", "content": "q"}],
         "reward_model": {"ground_truth": "<tool_call>{}</tool_call>"}},
        {"question": [[]], "function": [AREA]},
        {"question": [[]], "function": [AREA], "ground_truth": [{"other": {}}]},
        {"question": [[]], "function": [AREA], "ground_truth": [{"g.area": {"n": []}}]},
    ],
)  # fmt: skip
def test_unusable_gold_raises_value_error(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        load_task("tool_calls").sample(Record("simple_0", fields, Path()))
