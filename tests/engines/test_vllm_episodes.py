"""Episodes of several turns with vLLM: every turn is asked with what was said and told before."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from mmrl.config import RunConfig
from mmrl.runlog.journal import Journal
from mmrl.train.run import train
from mmrl.validation import validate
from tests.runs import WARM_UP, run_config

pytest.importorskip("vllm")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
    "engine",
    [
        {"engine": "vllm"},
        {"engine": "vllm_server"},
        {"engine": "vllm_server", "servers": {"weights": "broadcast"}},
    ],
    ids=["vllm", "server", "broadcast"],
)
def test_episodes_are_sampled_by_what_is_trained(engine: dict[str, Any], tmp_path: Path) -> None:
    """The gate compares what the model wrote in every turn, before and after its weights change."""
    mazes = tmp_path / "mazes"
    importlib.import_module("mmrl.data_recipes.mazes").build(
        None, mazes, train=6, validation=1, test=2
    )
    walk = {"task": "maze_walk", "path": str(mazes / "train.jsonl"), "params": {"turns": 4}}
    lengths = {"max_new_tokens": 120, "max_turn_tokens": 8}
    values = run_config(
        tmp_path / "run",
        mazes,
        model={"max_prompt_tokens": 300},
        data={**walk, "eval_path": None},
        rollout={**engine, "parity_every": 1, **lengths},
        optimizer={"learning_rate": 1e-3},
        trainer={"steps": 2, "prompts_per_step": 2},
    )
    values["algorithm"] = {"name": "gigpo", "group_size": 3}
    values |= {"phases": [WARM_UP, {"name": "gigpo"}]}
    train(validate(RunConfig, values, "test"))
    metrics = list(Journal(tmp_path / "run" / "metrics.jsonl").rows())[10:]
    assert [row["parity/image/max"] < 1e-4 for row in metrics] == [True, True]
    assert all(row["turns/mean"] > 1 and row["tokens/environment"] > 0 for row in metrics)
