"""Runs of a model that has learnt to end its turns, on pages of a task that a test writes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from mmrl.config import RunConfig
from mmrl.train.run import train
from mmrl.validation import validate
from tests.runs import WARM_UP, run_config


def taught(folder: Path) -> None:
    """A model that has seen the form of a turn, so that turns end."""
    importlib.import_module("mmrl.data_recipes.mazes").build(
        None, folder / "mazes", train=6, validation=1, test=1
    )
    values = run_config(
        folder / "taught",
        folder,
        data={
            "task": "maze_walk",
            "path": str(folder / "mazes" / "train.jsonl"),
            "eval_path": None,
            "params": {"turns": 4},
        },
        rollout={"max_new_tokens": 120, "max_turn_tokens": 8},
        trainer={"steps": 10},
    )
    del values["algorithm"]
    train(validate(RunConfig, {**values, "phases": [WARM_UP]}, "test"))


def settings(
    workspace: Path, name: str, task: str, turn_tokens: int, **trainer: Any
) -> dict[str, Any]:
    """A run of what `taught` has taught, on a task's pages of the workspace."""
    values = run_config(
        workspace / name,
        workspace,
        data={
            "task": f"{workspace / task}:Task",
            "path": str(workspace / "pages" / "train.jsonl"),
            "eval_path": None,
        },
        model={
            "path": str(workspace / "taught" / "checkpoints" / "step_10"),
            "max_prompt_tokens": 2000,
        },
        rollout={
            "max_new_tokens": 60,
            "max_turn_tokens": turn_tokens,
            "max_environment_tokens": 2000,
            "scoring_timeout_seconds": 120,
        },
        trainer=trainer,
    )
    return {**values, "algorithm": {"name": "grpo", "group_size": 3}}
