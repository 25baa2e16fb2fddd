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
from tests.rollout.test_episodes import SEES
from tests.runs import WARM_UP, run_config

pytest.importorskip("vllm")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
    ("engine", "sees"),
    [
        ({"engine": "vllm"}, False),
        ({"engine": "vllm_server"}, False),
        ({"engine": "vllm_server", "servers": {"weights": "broadcast"}}, False),
        ({"engine": "vllm"}, True),
    ],
    ids=["vllm", "server", "broadcast", "vllm, pictures"],
)
def test_episodes_are_sampled_by_what_is_trained(
    engine: dict[str, Any], sees: bool, tmp_path: Path
) -> None:
    """The gate compares what the model wrote in every turn, before and after its weights change.

    Where the walk `sees`, every turn shows a picture.
    """
    mazes = tmp_path / "mazes"
    importlib.import_module("mmrl.data_recipes.mazes").build(
        None, mazes, train=6, validation=1, test=2
    )
    walk = {"task": "maze_walk", "path": str(mazes / "train.jsonl"), "params": {"turns": 4}}
    lengths = {"max_new_tokens": 120, "max_turn_tokens": 8}
    if sees:
        (tmp_path / "sees.py").write_text(SEES)
        walk["task"] = f"{tmp_path / 'sees.py'}:Task"
        lengths["max_environment_tokens"] = 200
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
    turns = [
        turn
        for group in list(Journal(tmp_path / "run" / "rollouts.jsonl").rows())
        for response in group["responses"]
        for turn in response.get("turns", ())[1:]
    ]
    assert turns and all(len(turn.get("media", ())) == sees for turn in turns)
