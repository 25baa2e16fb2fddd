"""VisTA live: a frozen model behind a real server is asked with the tools that were chosen."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrl.config import RunConfig
from mmrl.environments import live
from mmrl.errors import ConfigError
from mmrl.runlog.journal import Journal
from mmrl.scoring.living import Living
from mmrl.scoring.pool import Scorer, StepJob, TaskSpec
from mmrl.scoring.tasks import fixture_path, load_task
from mmrl.train.run import train
from mmrl.types import Answer, Observation, Record, Sample, Score
from mmrl.validation import validate
from tests.runs import WARM_UP, run_config
from tests.scoring.judge_server import JudgeServer

TOOLS = """
from PIL import ImageOps

def negative(picture):
    picture.paste((0, 0, 0), (0, 0, 1, 1))  # its own picture, nobody else's
    return ImageOps.invert(picture)

def size(picture):
    return f"{picture.width} x {picture.height}"

def broken(picture):
    return None
"""
NAMES = ["negative", "size", "broken"]


def reply(text: str, number: int) -> str:
    """Right when it is told the size; right alone about the second question, unless told it."""
    told = "size: 8 x 6" in text
    if "Which" in text:
        return "It is hard to see." if told else "<answer>Red</answer>"
    return "I say <answer>48</answer>" if told else "<answer>7</answer>"


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer(reply) as found:
        yield found


def params(url: str, folder: Path) -> dict[str, Any]:
    (folder / "looks.py").write_text(TOOLS)
    tools = {name: f"{folder / 'looks.py'}:{name}" for name in NAMES}
    reasoner = {"url": url, "model": "frozen", "tools": tools, "timeout_seconds": 5}
    return {"think": "none", "reasoner": reasoner}


def questions(folder: Path, given: dict[str, Any]) -> list[Sample]:
    pixels = np.full((6, 8, 3), 200, np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    task = load_task("tool_selection", given)
    rows = [{"query": "How many?", "label": "48"}, {"query": "Which colour?", "label": "red"}]
    return [
        task.ask(Record(f"{i}", {**row, "imgname": "a.png", "tools": NAMES}, folder))
        for i, row in enumerate(rows)
    ]


def played(given: dict[str, Any], turns: list[tuple[Sample, str]]) -> list[Observation | str]:
    living = living_of(given)
    try:
        return living.step([job(sample, text) for sample, text in turns])
    finally:
        living.close()


def living_of(given: dict[str, Any]) -> Living:
    spec = {"tool_selection": TaskSpec("tool_selection", given, {})}
    return Living(Scorer(spec, 1, 60.0), {"tool_selection": load_task("tool_selection", given)})


def job(sample: Sample, text: str) -> StepJob:
    assert sample.start is not None
    answer = Answer(text, turns=(text,))
    return StepJob("tool_selection", sample.gold, sample.start.state, answer)


def scored(given: dict[str, Any], sample: Sample, text: str, outcome: float | None) -> Score:
    return load_task("tool_selection", given).score(sample.gold, Answer(text, outcome=outcome))


def test_a_choice_is_judged_by_what_the_model_says_with_it(
    server: JudgeServer, tmp_path: Path
) -> None:
    given = params(server.url, tmp_path)
    first, second = questions(tmp_path, given)
    chosen = {i: f"<answer>{i}</answer>" for i in (0, 1)}
    turns = [(first, chosen[1]), (first, chosen[0]), (second, chosen[1]), (second, chosen[0])]
    found = played(given, turns)
    assert all(isinstance(seen, Observation) and seen.done for seen in found), found
    outcomes = [seen.outcome for seen in found if isinstance(seen, Observation)]
    assert outcomes == [1.0, 0.5, 0.0, 1.0], "right; wrong either way; harm; right"
    verdicts = [scored(given, s, t, o) for (s, t), o in zip(turns, outcomes, strict=True)]
    assert [v.parts["outcome"] for v in verdicts] == [1.0, 0.0, -0.5, 1.0]
    assert [v.metric for v in verdicts] == [1.0, 0.0, 0.0, 1.0]


def test_the_model_sees_the_picture_and_what_tools_give(
    server: JudgeServer, tmp_path: Path
) -> None:
    given = params(server.url, tmp_path)
    first, _ = questions(tmp_path, given)
    played(given, [(first, "<answer>1, 0</answer>")])
    (body,) = server.bodies
    assert body["temperature"] == 0 and body["model"] == "frozen"
    content = body["messages"][0]["content"]
    kinds = [part["type"] for part in content]
    assert kinds == ["image_url", "text", "image_url", "text", "text", "text"]
    assert content[1]["text"] == "\nnegative: " and content[4]["text"] == "8 x 6"
    assert content[5]["text"].startswith("\nHow many? ")
    shown = [opened(part["image_url"]["url"]) for part in content if part["type"] == "image_url"]
    assert shown[0].shape == shown[1].shape == (6, 8, 3)
    assert (shown[0] == 200).all() and shown[1][0, 0].tolist() == [255] * 3
    assert (shown[1][1:] == 55).all()


def opened(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def test_frozen_answers_are_asked_for_once(server: JudgeServer, tmp_path: Path) -> None:
    given = params(server.url, tmp_path)
    first, second = questions(tmp_path, given)
    living = living_of(given)
    try:
        for _ in range(3):
            living.step([job(first, "<answer>0</answer>"), job(second, "<answer>0</answer>")])
    finally:
        living.close()
    assert server.asked == 3, "with and without for the first, with for the second"


def test_what_cannot_be_read_asks_nobody(server: JudgeServer, tmp_path: Path) -> None:
    given = params(server.url, tmp_path)
    first, _ = questions(tmp_path, given)
    (seen,) = played(given, [(first, "<answer>nine</answer>")])
    assert isinstance(seen, Observation) and seen.done and seen.outcome is None
    assert server.asked == 0
    score = scored(given, first, "<answer>nine</answer>", None)
    assert score.parts["outcome"] == -0.5 and score.status == "malformed"
    with pytest.raises(ValueError, match="not asked"):
        scored(given, first, "<answer>0</answer>", None)


def test_a_server_or_a_tool_that_fails_gives_no_verdict(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = params(server.url, tmp_path)
    first, _ = questions(tmp_path, given)
    (broken,) = played(given, [(first, "<answer>2</answer>")])
    assert isinstance(broken, str) and "the tool 'broken' gave no picture" in broken
    assert server.asked == 0
    server.reply = lambda text, number: "500" if number < live.TRIES - 1 else reply(text, number)
    (mended,) = played(given, [(first, "<answer>1</answer>")])
    assert isinstance(mended, Observation) and mended.outcome == 1.0, "it was tried again"
    server.reply = lambda text, number: "garbage"
    (lost,) = played(given, [(first, "<answer>1</answer>")])
    assert isinstance(lost, str) and lost.startswith("environment failed: the frozen model")


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    given = params("http://127.0.0.1:1/v1", tmp_path)
    task = load_task("tool_selection", given)
    row = {"query": "How many?", "label": "4", "imgname": "a.png", "tools": ["fly"]}
    with pytest.raises(ValueError, match=r"reasoner.tools has no 'fly'"):
        task.ask(Record("1", row, tmp_path))
    given["reasoner"]["urls"] = "x"
    with pytest.raises(ConfigError, match="parameter 'reasoner'"):
        load_task("tool_selection", given)


def test_grpo_trains_on_live_verdicts(server: JudgeServer, tmp_path: Path) -> None:
    """A warm-up on answers that records hold, then choices that the frozen model is asked with."""
    (tmp_path / "looks.py").write_text(TOOLS)
    rows = [json.loads(line) for line in fixture_path("tool_selection").read_text().splitlines()]
    names = rows[0]["tools"]
    tools = {name: f"{tmp_path / 'looks.py'}:size" for name in names}
    reasoner = {"url": server.url, "model": "frozen", "tools": tools}
    records = {"path": str(fixture_path("tool_selection")), "eval_path": None}
    held = {"task": "tool_selection", "params": {"think": "none"}, **records}
    asked = {**held, "params": {"think": "none", "compare": "text", "reasoner": reasoner}}
    values = run_config(
        tmp_path / "run",
        tmp_path,
        data=asked,
        rollout={"max_new_tokens": 12, "scoring_timeout_seconds": 60},
        trainer={"steps": 2, "prompts_per_step": 2},
    )
    grpo = {"name": "grpo", "algorithm": values.pop("algorithm")}
    values["phases"] = [{**WARM_UP, "data": held}, grpo]
    train(validate(RunConfig, values, "test"))
    *_, last = Journal(tmp_path / "run" / "rollouts.jsonl").rows()
    assert server.asked > 0
    assert all(set(r["parts"]) == {"outcome", "format"} for r in last["responses"])
    assert all(r["status"] != "unscorable" for r in last["responses"])
