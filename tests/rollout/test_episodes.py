"""Runs over episodes of several turns: a walk through mazes, trained, resumed and failing."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmrl.api import evaluate
from mmrl.config import RunConfig
from mmrl.errors import UserError
from mmrl.runlog.journal import Journal
from mmrl.train.run import train
from mmrl.validation import validate
from tests.runs import WARM_UP, run_config

IN_TURNS = ("gigpo", "turn_level", "ppo")


@pytest.fixture(scope="module")
def mazes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mazes")
    importlib.import_module("mmrl.data_recipes.mazes").build(
        None, folder, train=6, validation=1, test=2
    )
    return folder


def config(folder: Path, mazes: Path, name: str, **sections: Any) -> dict[str, Any]:
    made = run_config(
        folder,
        mazes,
        data={"task": "maze_walk", "path": str(mazes / "train.jsonl"), "params": {"turns": 4}},
        rollout={"max_new_tokens": 120, "max_turn_tokens": 8},
        trainer={"steps": 2, "prompts_per_step": 2},
        **sections,
    )
    made["algorithm"] = {"name": name, "group_size": 3}
    made["data"]["eval_path"] = None
    return made


def carry_out(values: dict[str, Any], **flags: bool) -> Path:
    train(validate(RunConfig, values, "test"), **flags)
    return Path(values["run"])


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    return list(Journal(run / name).rows())


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, mazes: Path) -> str:
    """A model that has seen the form of a turn."""
    run = tmp_path_factory.mktemp("started") / "run"
    values = config(run, mazes, "sft")
    values["algorithm"] = {"name": "sft"}
    values |= {"phases": [WARM_UP]}
    return str(carry_out(values) / "checkpoints" / "step_10")


@pytest.mark.parametrize("name", IN_TURNS)
def test_it_trains_on_what_the_model_wrote(
    name: str, tmp_path: Path, mazes: Path, started: str
) -> None:
    run = carry_out(config(tmp_path / "run", mazes, name, model={"path": started}))
    measured = rows(run, "metrics.jsonl")
    assert [row["step"] for row in measured] == [1, 2]
    for row in measured:
        assert row["tokens/environment"] > 0 and row["turns/mean"] > 1
        assert np.isfinite(row["train/loss"])
    for group in rows(run, "rollouts.jsonl"):
        for response in group["responses"]:
            spans = [turn["tokens"] for turn in response["turns"]]
            written = np.zeros(response["length"], dtype=bool)
            for start, end in spans:
                written[start:end] = True
            advantages = response["advantages"]
            if len(spans) > 1:
                assert np.array_equal(~np.isnan(np.array(advantages, dtype=float)), written)
            assert response["text"] == "\n".join(turn["said"] for turn in response["turns"])


def test_targets_are_written_turn_by_turn(tmp_path: Path, mazes: Path) -> None:
    values = config(tmp_path / "run", mazes, "sft")
    values["algorithm"] = {"name": "sft"}
    values["data"]["params"] = {"turns": 8}
    values["rollout"]["max_new_tokens"] = 320
    run = carry_out({**values, "phases": [{**WARM_UP, "trainer": {"steps": 1}}]})
    (first, *_) = rows(run, "rollouts.jsonl")
    (response,) = first["responses"]
    assert response["metric"] == 1.0 and response["reward"] == pytest.approx(1.1)
    moves = len(response["turns"])
    assert moves >= 1 and response["turns"][-1]["earned"] == 1.0
    assert all(turn["said"].startswith("<answer>") for turn in response["turns"])
    (row, *_) = rows(run, "metrics.jsonl")
    assert row["share/truncated"] == 0.0


def ends_alike(whole: Path, values: dict[str, Any], step: int) -> None:
    """A run without its last checkpoint, gone on with, comes to the same weights and answers."""
    again = whole.parent / "again"
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / f"step_{step}")
    carry_out({**values, "run": str(again)}, resume=True)
    one, other = (
        load_file(run / "checkpoints" / f"step_{step}" / "model.safetensors")
        for run in (whole, again)
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert rows(whole, "rollouts.jsonl") == rows(again, "rollouts.jsonl")


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_resumed_run_ends_as_if_it_had_not_stopped(
    staleness: int, tmp_path: Path, mazes: Path, started: str
) -> None:
    """Also where whole episodes are played ahead of the update, by the weights of a step before."""
    values = config(tmp_path / "whole", mazes, "gigpo", model={"path": started})
    values["trainer"] |= {"steps": 4, "checkpoint_every": 2}
    if staleness:
        values["rollout"] |= {"engine": "hf_copy", "max_staleness": staleness}
    whole = carry_out(values)
    for group in rows(whole, "rollouts.jsonl"):
        expected = max(0, group["step"] - 1 - staleness) if staleness else None
        assert {response.get("policy_version") for response in group["responses"]} == {expected}
        assert any(len(response["turns"]) > 1 for response in group["responses"])
    ends_alike(whole, values, step=4)


SEES = """
import io
from dataclasses import dataclass, replace
from PIL import Image
from mmrl.tasks.maze_walk.task import Task as Walk
from mmrl.types import MediaRef, Text

@dataclass(frozen=True)
class Task(Walk):
    def step(self, gold, state, answer):
        there = super().step(gold, state, answer)
        row, column = there.state
        colour = (60 * row, 60 * column, 30 * len(answer.turns))
        file = io.BytesIO()
        Image.new("RGB", (56, 84), colour).save(file, "PNG")
        return replace(there, parts=(Text(there.text), MediaRef("image", file.getvalue())))
"""


@pytest.mark.parametrize("staleness", [0, 1])
def test_pictures_of_later_turns_are_trained_on_and_resumed(
    staleness: int, tmp_path: Path, mazes: Path, started: str
) -> None:
    (tmp_path / "sees.py").write_text(SEES)
    values = config(tmp_path / "whole", mazes, "gigpo", model={"path": started})
    values["data"]["task"] = f"{tmp_path / 'sees.py'}:Task"
    values["trainer"] |= {"steps": 3, "checkpoint_every": 2}
    values["rollout"]["max_environment_tokens"] = 200
    if staleness:
        values["rollout"] |= {"engine": "hf_copy", "max_staleness": staleness}
    whole = carry_out(values)
    groups = rows(whole, "rollouts.jsonl")
    turns = [turn for g in groups for r in g["responses"] for turn in r["turns"][1:]]
    assert turns and all(len(turn["media"]) == 1 for turn in turns)
    assert all((whole / turn["media"][0]["thumbnail"]).is_file() for turn in turns)
    assert all(np.isfinite(row["train/loss"]) for row in rows(whole, "metrics.jsonl"))
    ends_alike(whole, values, step=3)


@pytest.mark.parametrize("pixels", [None, 3136])
def test_histories_that_forget_are_trained_on_and_resumed(
    tmp_path: Path, mazes: Path, started: str, pixels: int | None
) -> None:
    (tmp_path / "sees.py").write_text(SEES)
    values = config(tmp_path / "whole", mazes, "grpo", model={"path": started})
    values["data"]["task"] = f"{tmp_path / 'sees.py'}:Task"
    values["trainer"] |= {"steps": 3, "checkpoint_every": 2}
    values["rollout"] |= {"max_environment_tokens": 200, "history_screens": 1}
    values["rollout"]["history_pixels"] = pixels
    whole = carry_out(values)
    measured = rows(whole, "metrics.jsonl")
    assert all(row["turns/branches"] > 0 < row["turns/screens_left_out"] for row in measured)
    assert all(np.isfinite(row["train/loss"]) for row in measured)
    branches = [
        branch
        for group in rows(whole, "rollouts.jsonl")
        for response in group["responses"]
        for branch in response.get("branches", ())
    ]
    assert branches and all(len(branch["turns"]) == 1 for branch in branches)
    assert {branch.get("left_out", 0) for branch in branches} >= {1, 2}
    ends_alike(whole, values, step=3)
    values["algorithm"]["name"] = "gigpo"
    with pytest.raises(UserError, match="history_screens"):
        carry_out({**values, "run": str(tmp_path / "turns")})


HOSTILE = """
import os, time
from mmrl.tasks.maze_walk.task import Task as Walk
from dataclasses import dataclass

@dataclass(frozen=True)
class Task(Walk):
    how: str = "raise"

    def step(self, gold, state, answer):
        match self.how:
            case "raise": raise RuntimeError("no such room")
            case "sleep": time.sleep(60)
            case "exit": os._exit(3)
            case "text": return super().step(gold, state, answer).__class__(state, 5, None)
        return super().step(gold, state, answer)
"""


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "exception: hostile_walk.py:12: RuntimeError: no such room"),
        ("sleep", "timeout: no verdict within 1 s"),
        ("exit", "crash: the scoring worker exited with code 3"),
        ("text", "what is shown besides goes into"),
    ],
)
def test_an_environment_that_fails_makes_episodes_unscorable(
    how: str, reason: str, tmp_path: Path, mazes: Path, monkeypatch: Any
) -> None:
    package = tmp_path / "extra"
    (package / "hostile_walk-1.dist-info").mkdir(parents=True)
    (package / "hostile_walk.py").write_text(HOSTILE)
    about = {
        "entry_points.txt": "[mmrl.tasks]\nhostile_walk = hostile_walk\n",
        "METADATA": "Name: hostile-walk\nVersion: 1\n",
    }
    for name, text in about.items():
        (package / "hostile_walk-1.dist-info" / name).write_text(text)
    monkeypatch.syspath_prepend(str(package))
    values = config(tmp_path / "run", mazes, "sft")
    values["algorithm"] = {"name": "sft"}
    values["data"] |= {"task": "hostile_walk", "params": {"how": how}}
    values["rollout"] |= {
        "engine": "targets",
        "scoring_timeout_seconds": 1,
        "max_unscorable_share": 1.0,
    }
    values["trainer"] |= {"steps": 1, "prompts_per_step": 1}
    run = carry_out(values)
    (row,) = rows(run, "metrics.jsonl")
    (group,) = rows(run, "rollouts.jsonl")
    (response,) = group["responses"]
    assert response["reward"] is None and reason in response["reason"]
    assert row["share/unscorable"] == 1.0 and row["train/updates"] == 0.0
    with pytest.raises(UserError, match=r"^the environment fails in every episode: "):
        values["rollout"] |= {"max_unscorable_share": 0.0}
        carry_out({**values, "run": str(tmp_path / "strict")})


def test_a_model_is_evaluated_over_whole_episodes(mazes: Path, started: str) -> None:
    found = evaluate(started, "maze_walk", mazes / "test.jsonl")
    assert found.records == 2 and found.unscorable == 0
    assert 0.0 <= found.metric <= 1.0


def test_algorithms_that_pay_parts_of_one_text_refuse_episodes(tmp_path: Path, mazes: Path) -> None:
    values = config(tmp_path / "run", mazes, "stepgrpo")
    values["algorithm"] = {"name": "stepgrpo", "pay": "span"}
    with pytest.raises(UserError, match="pays parts of one text"):
        carry_out(values)
