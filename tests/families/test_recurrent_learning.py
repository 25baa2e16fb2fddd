"""A model with recurrent layers learns by GRPO what its pictures ask for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrl import api
from mmrl.config import RunConfig
from mmrl.validation import validate
from tests.families import tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

STEPS = 60


def records(path: Path, seed: int, count: int) -> Path:
    """Dark and bright pictures in turn, under the same words."""
    rng, rows = np.random.default_rng(seed), []
    path.mkdir()
    for n in range(count):
        low = 128 * (n % 2)
        pixels = rng.integers(low, low + 128, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{n}.png")
        shown = ("dark", "bright")[n % 2]
        rows.append({"id": f"{seed} {n}", "prompt": "Say.", "image": f"{n}.png", "shown": shown})
    file = path / "records.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def run(tmp_path: Path, control: str) -> dict[str, float]:
    """Accuracy on held-out pictures before and after, from random weights."""
    folder = tmp_path / control
    folder.mkdir()
    for part in tiny.build("qwen3_5"):
        part.save_pretrained(folder / "model")
    values = {
        "run": str(folder / "run"),
        "model": {"path": str(folder / "model"), "freeze_tower": True},
        "data": {
            "task": "custom",
            "path": str(records(folder / "train", 0, 32)),
            "eval_path": str(records(folder / "test", 1, 16)),
            "params": {"function": "tests.verifiers:case_of_the_picture"},
        },
        "algorithm": {"name": "grpo", "group_size": 8},
        "rollout": {"max_new_tokens": 6, "scoring_workers": 1},
        "optimizer": {"learning_rate": 2e-3, "warmup_steps": 2},
        "trainer": {"steps": STEPS, "prompts_per_step": 4, "reward_control": control},
    }
    found: dict[str, float] = api.train(validate(RunConfig, values, "test"))
    return found


def test_rewards_teach_what_a_picture_asks_for(tmp_path: Path) -> None:
    """More than half of what half of the pictures ask for takes both answers, each in its place."""
    found, control = run(tmp_path, "none"), run(tmp_path, "shuffle")
    assert found["before"] < 0.3
    assert found["after"] > 0.6
    assert control["after"] < 0.5
