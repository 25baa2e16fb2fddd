from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mmrl.frame import Frame
from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, Record, Score

FRAME = Frame((1000, 800), (500, 200))
FIELDS = {"image": "a.png", "question": "q?", "answer": "The kite is red.",
          "target_box": [600, 400, 640, 440]}  # fmt: skip
JUDGES = """
def yes(question, gold, answer): return 1.0
def no(question, gold, answer): return 0.0
def down(question, gold, answer): raise TimeoutError("judge")
def undecided(question, gold, answer): return None
def wild(question, gold, answer): return float("nan")
"""


@pytest.fixture(scope="module", autouse=True)
def judges(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("judges")
    (folder / "search_judges.py").write_text(JUDGES)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def zoom(*box: float, **extra: Any) -> str:
    call = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": list(box), **extra}}
    return f"<think>look</think><tool_call>{json.dumps(call)}</tool_call>\n"


def said(text: str = "The kite is red.") -> str:
    return f"<think>so</think><answer>{text}</answer>"


def grade(text: str, **params: Any) -> Score:
    task = load_task("visual_search", params)
    gold = task.sample(Record("1", FIELDS, Path("root"))).gold
    return task.score(gold, Answer(text, frames=(FRAME,)))


# the target's middle (620, 420) is seen at (310, 105)
GOOD = zoom(300, 100, 320, 110)


def test_judges_decide_and_an_outage_is_not_wrong() -> None:
    assert grade(said("anything"), judge="search_judges:yes").metric == 1
    assert grade(said(), judge="search_judges:no").metric == 0
    for judge, error in (("down", TimeoutError), ("undecided", ValueError), ("wild", ValueError)):
        with pytest.raises(error):
            grade(said(), judge=f"search_judges:{judge}")
    assert grade("", judge="search_judges:down").metric == 0


@pytest.mark.parametrize(
    ("text", "accuracy", "tool", "format_"),
    [
        (said(), 1, 0, 1), (GOOD + said(), 1, 1, 1), (GOOD + said("blue"), 0, 0, 1),
        (GOOD + said("kite is RED"), 1, 1, 1), (zoom(600, 400, 640, 440) + said(), 1, 0, 1),
        (zoom(0, 0, 500, 200) + said(), 1, 0, 1), (zoom(0, 0, 20, 20) + said(), 1, 0, 1),
        (GOOD + zoom(0, 0, 20, 20) + said(), 1, 0, 1), (zoom(9, 9, 1, 1) + said(), 1, 0, 0),
        (zoom(300, 100, 320) + said(), 1, 0, 0), (GOOD * 5 + said(), 1, 1, 1),
        (GOOD * 9 + said(), 0, 0, 0), (GOOD, 0, 0, 0), ("", 0, 0, 0), (said() + said(), 0, 0, 0),
        (said() + GOOD + said(), 0, 0, 0), (zoom(300, 100, 320, 110, x=1) + said(), 1, 0, 0),
        (GOOD.replace("image_zoom_in_tool", "rm") + said(), 1, 0, 0),
        ("<tool_call></tool_call>" + said(), 0, 0, 0), (GOOD + said() + " ok", 1, 1, 0),
    ],
)  # fmt: skip
def test_trajectories(text: str, accuracy: int, tool: int, format_: int) -> None:
    score = grade(text)
    assert dict(score.parts) == {"accuracy": accuracy, "tool": tool, "format": format_}


@pytest.mark.parametrize(
    "changes",
    [
        {"question": ""}, {"answer": "..."}, {"target_box": [1, 2, 3]}, {"image": "../a.png"},
        {"target_box": [4, 4, 1, 1]}, {"target_box": [1, 1, float("nan"), 4]},
    ],
)  # fmt: skip
def test_unusable_records_raise_value_error(changes: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        load_task("visual_search").sample(Record("1", {**FIELDS, **changes}, Path("root")))


def test_a_megabyte_is_refused_in_a_moment() -> None:
    for unit in ("</tool_call>", "<tool_call>", said(), GOOD):
        started = time.process_time()
        assert grade(unit * (10**6 // len(unit))).metric == 0
        assert time.process_time() - started < 1.0
