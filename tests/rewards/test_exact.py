"""A task made of one function: what it asks, what is right, and one step of training on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmrl.cli import main
from mmrl.errors import ConfigError
from mmrl.records import read_records
from mmrl.rewards.exact import same, task
from mmrl.runlog.journal import Journal
from mmrl.scoring.check import check
from mmrl.scoring.tasks import load_task
from mmrl.task import Task
from mmrl.types import Answer, MediaRef, Record, Text
from tests.runs import make_digits, run_config, write_config

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "exact_task.py") + ":count"


@task("say where it is")
def place(row: Any) -> tuple[Any, str, Any]:
    return row.get("pictures"), row.get("question", "Where?"), row["places"]


def made(**params: Any) -> Task:
    return place(**params)


def test_a_function_becomes_a_task() -> None:
    record = Record("1", {"pictures": "a.png", "places": ["New York", "NYC"]}, Path("/data"))
    sample = made().sample(record)
    assert (made().name, made().summary, sample.task) == ("place", "say where it is", "place")
    assert sample.parts[0] == MediaRef("image", Path("/data/a.png"))
    assert isinstance(sample.parts[1], Text) and sample.parts[1].text.startswith("Where? ")
    assert sample.gold == ["New York", "NYC"]
    for text, pay in (
        ("<answer>new  york.</answer>", 1.0),
        ("<think>NYC?</think><answer>NYC</answer>", 1.0),
        ("<answer>York</answer>", 0.0),
        ("NYC", 0.0),
        ("<answer>NYC</answer><answer>NYC</answer>", 0.0),
    ):
        assert made().score(sample.gold, Answer(text)).metric == pay
    assert made().target(sample, Answer("")) == "<answer>New York</answer>"


def test_pictures_stand_where_the_question_says() -> None:
    fields = {"pictures": ["a.png", "b.png"], "question": "<image> or <image>?", "places": 1}
    parts = made().sample(Record("1", fields, Path("/data"))).parts
    assert [type(part).__name__ for part in parts] == ["MediaRef", "Text", "MediaRef", "Text"]
    (alone,) = made().sample(Record("1", {"places": 1}, Path("/"))).parts
    assert isinstance(alone, Text)


@pytest.mark.parametrize("places", [None, [], "", " ", [None], {"a": 1}])
def test_what_is_no_answer_leaves_the_record_out(places: Any) -> None:
    with pytest.raises(ValueError, match="answer"):
        made().sample(Record("1", {"places": places}, Path("/data")))


@pytest.mark.parametrize(
    ("said", "right", "equal"),
    [
        ("2", "2.0", True),
        ("1e3", "1000", True),
        (" Yes.", "yes", True),
        ("2", "3", False),
        ("nan", "NaN", True),
        ("nan", "3", False),
        ("0.1", "0.1000000001", True),
        ("1.", "1", True),
        ("1,000", "1000", True),
        ("1_000", "1000", False),
        ("\u0663", "3", False),
        ("1e-400", "0", False),
        ("9" * 400, "inf", False),
    ],
)
def test_answers_are_compared_as_people_do(said: str, right: str, equal: bool) -> None:
    assert same(said, right) is equal


def test_the_example_passes_the_check(tmp_path: Path) -> None:
    digits = make_digits(tmp_path, train=6)
    found = check(load_task(EXAMPLE), digits / "digit_count" / "train.jsonl")
    assert (found.records, found.problems) == (6, [])


def test_the_example_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = make_digits(tmp_path / "digits", train=6, test=2)
    config = run_config(tmp_path / "run", digits, data={"task": EXAMPLE}, trainer={"steps": 1})
    assert main(["train", str(write_config(tmp_path / "run.yaml", config)), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == 1 and Path(result["report"]).is_file()
    (row,) = Journal(tmp_path / "run" / "metrics.jsonl").rows()
    assert row["share/unscorable"] == 0.0 and "reward/accuracy" in str(row)
    asked = {record.id for record in read_records(digits / "digit_count" / "train.jsonl")}
    (consumed,) = Journal(tmp_path / "run" / "consumed.jsonl").rows()
    assert set(consumed["ids"]) <= asked


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.py:f", "nowhere.py"),
        ("./no/where.py:f", "no/where.py"),
        ("json:nothing", "json has no function 'nothing'"),
        ("json:dumps", "is no task: put @task"),
        (":f", "write it as package.module:function or file.py:function"),
        ("no.such.module:f", "No module named"),
    ],
)
def test_what_is_no_task_is_one_line(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_task(name)
    assert said in str(error.value) and "\n" not in str(error.value)
