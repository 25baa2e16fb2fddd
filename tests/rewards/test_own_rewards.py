"""One step of training by reward functions of every form, each with the rewards it should give."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mmrl
from mmrl import plugins
from mmrl.cli import main
from mmrl.errors import TrainingError
from mmrl.rewards.custom import load_function
from tests.conftest import TINY
from tests.runs import write_config
from tests.test_in_memory import picture
from tests.verifiers import always_raises

FORMS = """
from weights_of_mine import SCALE

def trl(prompts, completions, completion_ids, image, trainer_state, log_metric, **columns):
    assert trainer_state.global_step == 0 and trainer_state.max_steps == 1
    assert len(completions) == 2 and [i.size for i in image] == [(8, 8)] * 2
    assert all(m[0]["content"][0]["image"].size == (8, 8) for m in prompts)
    log_metric("seen", 5)
    return [SCALE * len(ids) for ids in completion_ids]

def verl(data_source, solution_str, ground_truth, extra_info=None):
    assert (data_source, ground_truth) == ("mine", "2")
    return {"score": float(len(solution_str)), "acc": 0.0}

async def waits(completions, answer, **columns):
    return [float(len(c[0]["content"])) for c in completions]

def order(completions, **columns):
    texts = [c[0]["content"] for c in completions]
    return [float(sorted(texts).index(t)) for t in texts]

def one(completions, **columns):
    return [1.0] * len(completions)
"""


def expected(group: list[dict[str, Any]], what: str) -> list[float]:
    texts = [response["text"] for response in group]
    rules: dict[str, Callable[[dict[str, Any]], float]] = {
        "trl": lambda r: 3.0 * r["length"],
        "verl": lambda r: float(len(r["text"])),
        "waits": lambda r: float(len(r["text"])),
        "order": lambda r: float(sorted(texts).index(r["text"])),
        "several": lambda r: sorted(texts).index(r["text"]) + 0.5,
    }
    return [rules[what](response) for response in group]


def test_every_form_trains_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "own_forms.py").write_text(FORMS)
    (folder / "weights_of_mine.py").write_text("SCALE = 3.0\n")
    picture(1).save(folder / "a.png")
    message = [{"role": "user", "content": "What is 1 + 1?"}]
    row = {"prompt": message, "image": "a.png", "answer": "2", "data_source": "mine"}
    (folder / "d.jsonl").write_text(json.dumps(row) + "\n")
    # `file.py:f` and `module:f`, both beside the configuration and not where the user is.
    functions: dict[str, Any] = {
        "trl": "own_forms.py:trl",
        "verl": "own_forms:verl",
        "waits": "own_forms:waits",
        "order": "own_forms.py:order",
        "several": ["own_forms.py:order", "own_forms:one"],
    }
    sources = [
        {
            "task": "custom",
            "path": str(folder / "d.jsonl"),
            "params": {"function": function},
            "weights": {"one": 0.5} if name == "several" else {},
        }
        for name, function in functions.items()
    ]
    config = {
        "run": str(tmp_path / "run"),
        "model": {"path": TINY},
        "data": sources,
        "algorithm": {"name": "grpo", "group_size": 2},
        "rollout": {"max_new_tokens": 6, "scoring_workers": 1},
        "trainer": {"steps": 1, "prompts_per_step": 10},
    }
    assert main(["train", str(write_config(folder / "run.yaml", config))]) == 0
    lines = (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()
    seen = set()
    for group in map(json.loads, lines):
        name = list(functions)[int(group["task"].rpartition("-")[2])]
        seen.add(name)
        got = [response["reward"] for response in group["responses"]]
        assert got == expected(group["responses"], name), name
    assert seen == set(functions)
    (metrics,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert metrics["logged/seen"] == 5.0 and metrics["reward/one"] == 1.0


def test_a_reward_that_always_fails_is_told_as_such(tmp_path: Path) -> None:
    config = {
        "run": str(tmp_path / "run"),
        "model": {"path": TINY},
        "algorithm": {"name": "grpo", "group_size": 2},
        "rollout": {"max_new_tokens": 2, "scoring_workers": 1},
        "trainer": {"steps": 1, "prompts_per_step": 1},
    }
    rows = [{"prompt": "What is 1 + 1?"}]
    with pytest.raises(TrainingError, match=r"fails on every answer.*RuntimeError: no verdict"):
        mmrl.train(config, data=rows, rewards=[always_raises])


def test_a_file_is_found_beside_the_configuration_and_first_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("conf", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which.py").write_text(f"def f(): return {name!r}\n")
    (tmp_path / "conf" / "only.py").write_text("def f(): return 'only'\n")
    monkeypatch.chdir(tmp_path / "here")
    plugins.importable_from(tmp_path / "conf")
    assert load_function("which.py:f")() == "here"
    assert load_function("only.py:f")() == load_function("only:f")() == "only"
