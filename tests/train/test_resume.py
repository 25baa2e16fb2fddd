"""Invariant 9: a killed run resumes as if it had not been killed, bit for bit on the CPU."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmrl.runlog.journal import Journal
from mmrl.train import checkpoint
from tests.runs import make_digits, run_config, write_config

STEPS = 8
TRAIN = [sys.executable, "-m", "mmrl.cli", "train"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    make_digits(folder / "digits")
    train(folder, "whole")
    return folder


def config_for(workspace: Path, name: str) -> Path:
    config = run_config(
        workspace / name,
        workspace / "digits",
        # KL needs the start as reference, several updates need old log-probs: both must survive.
        algorithm={"kl_coefficient": 0.02, "updates": {"mini_batches": 2}},
        optimizer={"warmup_steps": 3, "schedule": "linear"},
        trainer={"steps": STEPS, "checkpoint_every": 2, "keep_checkpoints": 2},
    )
    return write_config(workspace / f"{name}.yaml", config)


def train(workspace: Path, name: str, *flags: str) -> None:
    command = [*TRAIN, str(config_for(workspace, name)), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def train_and_kill(workspace: Path, name: str, seconds_after_first_step: float) -> None:
    process = subprocess.Popen(
        [*TRAIN, str(config_for(workspace, name))], stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (workspace / name / "metrics.jsonl").exists():
        time.sleep(0.01)
    time.sleep(seconds_after_first_step)
    process.send_signal(signal.SIGKILL)
    process.wait()


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step_{STEPS}" / "model.safetensors")


def consumed(run: Path) -> list[tuple[int, list[str]]]:
    return [(row["step"], row["ids"]) for row in Journal(run / "consumed.jsonl").rows()]


def rewards(run: Path) -> list[float]:
    return [row["reward/mean"] for row in Journal(run / "metrics.jsonl").rows()]


@pytest.mark.parametrize("attempt", range(3))
def test_killed_run_ends_with_the_same_weights_and_samples(workspace: Path, attempt: int) -> None:
    name = f"killed{attempt}"
    moment = float(np.random.default_rng().uniform(0, 4))
    train_and_kill(workspace, name, moment)
    # A kill may also fall into the writing of a line.
    with (workspace / name / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "rew')
    train(workspace, name, "--resume")
    whole, resumed = final_weights(workspace / "whole"), final_weights(workspace / name)
    assert whole.keys() == resumed.keys()
    different = [key for key in whole if not torch.equal(whole[key], resumed[key])]
    assert not different, f"killed after {moment:.2f} s: {different[:3]}"
    assert consumed(workspace / name) == consumed(workspace / "whole")
    assert rewards(workspace / name) == rewards(workspace / "whole")


TERMINATED = """
import os, signal, sys
from pathlib import Path
from mmrl.cli import main
from mmrl.train import rollout_parts
build = rollout_parts.build_engine
def telling(*args):
    engine = build(*args)
    generate = engine.generate
    def told(*asked):
        if Path(sys.argv[2]).exists():
            os.killpg(0, int(sys.argv[3]))
        return generate(*asked)
    engine.generate = told
    return engine
rollout_parts.build_engine = telling
sys.exit(main(["train", sys.argv[1], "trainer.checkpoint_every=0"]))
"""
"""A run that is told to end in the middle of its second step, while it rolls out."""


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (signal.SIGTERM, "terminated"),
        (signal.SIGINT, "interrupted"),
        (signal.SIGHUP, "hung up"),
    ],
)
def test_a_run_that_is_told_to_end_saves_its_step_and_goes_on_as_if_it_had_not(
    workspace: Path, number: signal.Signals, word: str
) -> None:
    name = f"ended{int(number)}"
    run, config = workspace / name, config_for(workspace, name)
    told = [str(config), str(run / "metrics.jsonl"), str(int(number))]
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, *told],
        capture_output=True,
        text=True,
        start_new_session=True,  # the signal goes to the whole group, as a terminal's does
    )
    assert done.returncode == 128 + number, done.stderr
    said = f"mmrl: {word}; `--resume` goes on from its checkpoint after step 2"
    assert done.stderr.splitlines()[-1] == said
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_2"]
    train(workspace, name, "--resume")
    whole, resumed = final_weights(workspace / "whole"), final_weights(run)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert rewards(run) == rewards(workspace / "whole")


def test_a_run_under_nohup_does_not_hear_that_its_terminal_is_gone(workspace: Path) -> None:
    told = [str(config_for(workspace, "nohup")), str(workspace / "nohup" / "metrics.jsonl")]
    command = [sys.executable, "-c", TERMINATED, *told, str(int(signal.SIGHUP))]
    done = subprocess.run(
        ["nohup", *command], capture_output=True, text=True, start_new_session=True
    )
    assert done.returncode == 0, done.stderr
    assert final_weights(workspace / "nohup").keys() == final_weights(workspace / "whole").keys()


def test_a_checkpoint_is_written_in_time_where_steps_are_long(workspace: Path) -> None:
    train(workspace, "long", "trainer.checkpoint_every=0", "trainer.checkpoint_minutes=1e-9")
    steps = {path.name for path in (workspace / "long" / "checkpoints").iterdir()}
    assert steps == {f"step_{STEPS - 1}", f"step_{STEPS}"}, "one a step, the last two of them kept"
    assert all(
        torch.equal(value, final_weights(workspace / "long")[name])
        for name, value in final_weights(workspace / "whole").items()
    )


def test_the_run_did_train(workspace: Path) -> None:
    first = load_file(checkpoint_folder(workspace, STEPS - 2) / "model.safetensors")
    last = final_weights(workspace / "whole")
    assert any(not torch.equal(first[key], last[key]) for key in last)
    assert [step for step, _ in consumed(workspace / "whole")] == list(range(1, STEPS + 1))


def checkpoint_folder(workspace: Path, step: int) -> Path:
    return workspace / "whole" / "checkpoints" / f"step_{step}"


def test_the_last_checkpoints_are_kept_and_load_with_transformers(workspace: Path) -> None:
    kept = sorted(p.name for p in (workspace / "whole" / "checkpoints").iterdir())
    assert kept == [f"step_{STEPS - 2}", f"step_{STEPS}"]
    folder = checkpoint_folder(workspace, STEPS)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    weights = final_weights(workspace / "whole")
    embeddings = next(value for key, value in weights.items() if "embed_tokens" in key)
    assert torch.equal(model.get_input_embeddings().weight, embeddings)
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.tokenizer("<|image_pad|>")["input_ids"] == [model.config.image_token_id]


def test_a_half_written_checkpoint_is_not_a_checkpoint(workspace: Path, tmp_path: Path) -> None:
    whole = checkpoint.latest(workspace / "whole")
    assert whole is not None and whole.step == STEPS
    partial = tmp_path / "checkpoints" / ".writing_9"
    partial.mkdir(parents=True)
    (tmp_path / "checkpoints" / "step_7").mkdir()
    assert checkpoint.latest(tmp_path) is None


def test_a_run_folder_is_not_overwritten_by_accident(workspace: Path) -> None:
    command = [*TRAIN, str(config_for(workspace, "whole"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--resume" in done.stderr and "--overwrite" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_result_names_before_and_after(workspace: Path) -> None:
    result = json.loads((workspace / "whole" / "result.json").read_text())
    assert {"before", "after", "seconds", "seed"} <= result.keys()
    assert (workspace / "whole" / "report.html").stat().st_size > 1000
