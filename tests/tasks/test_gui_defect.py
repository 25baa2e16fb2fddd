from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, MediaRef, Record, Score, Text


def fields(label: str = "No Defect", **changes: Any) -> dict[str, Any]:
    turns = [
        {"from": "human", "value": "<image><image>Action: [tap].\nOutput Format:\n- No Defect"},
        {"from": "gpt", "value": label},
    ]
    return {"image": ["a.png", "b.png"], "conversations": turns, **changes}


def grade(text: str, label: str = "No Defect") -> Score:
    task = load_task("gui_defect")
    return task.score(task.sample(Record("1", fields(label), Path("root"))).gold, Answer(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<answer>no defect.</answer>", 1), ("<answer>There is no defect</answer>", 0), ("", 0),
        ("<answer></answer>", 0), ("No Defect", 0), ("<answer>Operation No Response</answer>", 0),
        ("<answer>No Defect; Operation No Response</answer>", 0),
        ("<answer>No Defect</answer><answer>Operation No Response</answer>", 0),
        ("<answer>No  defect</answer>", 1), ("<answer>No Defect", 0),
        ("<answer>defect</answer>", 0),
    ],
)  # fmt: skip
def test_worked_examples(text: str, expected: int) -> None:
    assert grade(text).metric == expected


def test_the_prompt_keeps_the_action_and_drops_the_other_format() -> None:
    sample = load_task("gui_defect").sample(Record("1", fields(), Path("root")))
    before, after, ask = sample.parts
    assert [part.source for part in (before, after) if isinstance(part, MediaRef)] == [
        Path("root/a.png").absolute(), Path("root/b.png").absolute(),
    ]  # fmt: skip
    assert isinstance(ask, Text) and ask.text.startswith("Action: [tap].")
    assert "Output Format" not in ask.text and "<answer>" in ask.text


@pytest.mark.parametrize(
    "changes",
    [
        {"image": ["a.png"]}, {"image": "a.png"}, {"image": ["a.png", "../b.png"]},
        {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "Crash"}]},
        {"conversations": [{"from": "human", "value": ""}, {"from": "gpt", "value": "No Defect"}]},
        {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": ""}]},
    ],
)  # fmt: skip
def test_unusable_records_raise_value_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        load_task("gui_defect").sample(Record("1", fields(**changes), Path("root")))


def test_real_records() -> None:
    path = Path(os.environ.get("MMRL_TEST_DATA", "")) / "om-ai-lab__VLM-R1"
    path = path / "src/open-r1-multimodal/data_jsonl/gui_multi-image.jsonl"
    if not path.is_file():
        pytest.skip("MMRL_TEST_DATA does not hold VLM-R1's records")
    task = load_task("gui_defect")
    labels: Counter[str] = Counter()
    for record in task.records(path):
        sample = task.sample(record)
        labels[sample.gold.name] += 1
        assert task.score(sample.gold, Answer(str(sample.target))).metric == 1
        assert task.score(sample.gold, Answer(sample.parts[2].text)).metric == 0  # type: ignore[union-attr]
    assert labels == {"Operation No Response": 108, "Unexpected Task Result": 92}
