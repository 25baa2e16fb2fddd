"""The examples run, and the one-file GRPO has the trainer's numbers."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from mmrl.config import RunConfig
from mmrl.train.run import train
from tests.runs import make_digits, run_config

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def example(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_grpo_in_one_file_has_the_trainers_numbers(tmp_path: Path) -> None:
    one_file = example("grpo_in_one_file")
    digits = make_digits(tmp_path / "digits")
    config = run_config(
        tmp_path / "run",
        digits,
        optimizer={"learning_rate": 4e-4, "betas": (0.9, 0.95)},
        trainer={"steps": 4, "prompts_per_step": 3},
    )
    train(RunConfig.model_validate({**config, "data": {**config["data"], "eval_path": None}}))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()
    wanted = [json.loads(line) for line in lines]
    settings = replace(one_file.Settings(), data=digits, steps=4, prompts_per_step=3, group_size=4)
    steps = list(one_file.train(settings))
    assert len(steps) == len(wanted) == 4
    for step, metrics in zip(steps, wanted, strict=True):
        assert step.reward == pytest.approx(metrics["reward/mean"], abs=1e-6)
        assert step.loss == pytest.approx(metrics["train/loss"], rel=1e-4, abs=1e-5)
        assert step.grad_norm == pytest.approx(metrics["train/grad_norm"], rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_the_first_model_trains_and_answers(tmp_path: Path) -> None:
    """Its held-out answers get better, and it counts on a picture when it is asked."""
    command = [sys.executable, str(EXAMPLES / "first_model.py"), "--out", str(tmp_path / "first")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = map(float, re.findall(r"held-out reward (\S+) -> (\S+)", done.stdout)[0])
    assert after > before - 0.05
    assert re.search(r"^\(\d+, \d+\) <answer>\d</answer>$", done.stdout, re.MULTILINE)
    assert (tmp_path / "first" / "run" / "report.html").is_file()
