"""Two processes that roll out ahead, weights whole or sharded, and what a kill does to them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from mmrl.runlog.journal import Journal
from tests.engines.launching import ENVIRONMENT, ROOT, TORCHRUN, children, saved
from tests.engines.steps import CONFIGS
from tests.rollout.overlapping import ahead
from tests.runs import make_digits

pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]

STEPS = 6


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("overlap") / "digits", train=24, test=4)


def command(run: Path, digits: Path, stage: int, staleness: int, *flags: str) -> list[str]:
    backend = {"backend": "deepspeed", "deepspeed": str(CONFIGS / f"zero{stage}.json")}
    trainer = {"steps": STEPS, "prompts_per_step": 3, "checkpoint_every": 2}
    config = ahead(
        run,
        digits,
        staleness,
        # With a reference, which ZeRO-3 shards too, and refills.
        algorithm={"name": "dapo", "group_size": 4, "kl": {"coefficient": 0.02}},
        trainer={**trainer, **(backend if stage else {})},
    )
    file = run.with_suffix(".yaml")
    file.write_text(config.to_yaml())
    return [*TORCHRUN, "2", "-m", "mmrl.cli", "train", str(file), *flags]


def said(run: Path) -> list[tuple[int, str, list[tuple[str, int]]]]:
    return [
        (row["step"], row["id"], [(r["text"], r["policy_version"]) for r in row["responses"]])
        for row in Journal(run / "rollouts.jsonl").rows()
    ]


@pytest.mark.parametrize(("stage", "staleness"), [(0, 1), (2, 1), (3, 2)])
def test_two_processes_ahead_end_with_a_killed_one_and_resume_exactly(
    tmp_path: Path, digits: Path, stage: int, staleness: int
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = subprocess.run(command(whole, digits, stage, staleness), cwd=ROOT, env=ENVIRONMENT)
    assert done.returncode == 0
    ages = [row["overlap/staleness_max"] for row in Journal(whole / "metrics.jsonl").rows()]
    assert ages == [min(staleness, step - 1) for step in range(1, STEPS + 1)]

    process = subprocess.Popen(command(killed, digits, stage, staleness), cwd=ROOT, env=ENVIRONMENT)
    while process.poll() is None and len(list(Journal(killed / "metrics.jsonl").rows())) < 3:
        time.sleep(0.05)
    ranks = children(process.pid)
    os.kill(ranks[1], signal.SIGKILL)
    assert process.wait(timeout=90) != 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)

    again = command(killed, digits, stage, staleness, "--resume")
    assert subprocess.run(again, cwd=ROOT, env=ENVIRONMENT).returncode == 0
    assert said(killed) == said(whole)
    final = [saved(run / "checkpoints" / f"step_{STEPS}") for run in (killed, whole)]
    assert all(torch.equal(final[0][key], final[1][key]) for key in final[1])
