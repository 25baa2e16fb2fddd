"""Sharded steps equal the step of one process; a lost process ends the run and resume is exact."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmrl.runlog.journal import Journal
from tests.conftest import TINY
from tests.engines.launching import ENVIRONMENT, ROOT, TORCHRUN, children, saved
from tests.engines.steps import CONFIGS, cases
from tests.families.cases import policy as family_policy
from tests.runs import make_digits, run_config, write_config

pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]

every_first = pytest.mark.parametrize(
    ("processes", "model", "sharding", "budget"),
    [(n, *case) for n in (2, 4) for case in cases("first", n)],
)
every_second = pytest.mark.parametrize(
    ("processes", "model", "sharding"),
    [(n, model, sharding) for n in (1, 4) for model, sharding, _ in cases("second", 4)],
)


def launch(processes: int, *arguments: str) -> None:
    module = ["-m", "tests.engines.steps", *arguments]
    command = [*TORCHRUN, str(processes), *module] if processes > 1 else [sys.executable, *module]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """First steps by one, two and four processes; second ones after two by one and by four."""
    folder = tmp_path_factory.mktemp("steps")
    launch(1, str(folder), "first", "-")
    launch(2, str(folder), "first", "-")
    launch(4, str(folder), "first", "-")
    launch(1, str(folder), "second", "1")
    launch(1, str(folder), "second", "2")
    launch(4, str(folder), "second", "2")
    return folder


FLOAT32 = {"stats": 1e-5, "weight.": 1e-5, "exp_avg.": 2e-5, "exp_avg_sq.": 4e-5}
FLOAT64 = dict.fromkeys(FLOAT32, 1e-6)
# Adapters that are drawn at random move how fast delta nets forget: one process that packs the step
# otherwise differs from itself by 2e-4, and from float64 by as much. There two processes are one.
LONG_MEMORY = {**FLOAT32, "stats": 5e-5, "exp_avg.": 5e-4, "exp_avg_sq.": 5e-4}


def assert_same_step(
    found: dict[str, Tensor], wanted: dict[str, Tensor], limits: dict[str, float]
) -> None:
    """Numbers of the step, weights and both moments are within `limits` of their size.

    The first moment is the gradient, clipped, and the second its square. In float32 the gradient of
    one process that packs the step otherwise differs by 1.2e-5 from its own: that is its rounding.
    """
    _loss, kl, entropy, grad_norm, tokens = found["stats"].tolist()
    assert grad_norm > 0 and kl >= 0 and entropy > 0 and tokens == 46
    torch.testing.assert_close(found["stats"], wanted["stats"], rtol=limits["stats"], atol=1e-7)
    for kind in ("exp_avg.", "exp_avg_sq.", "weight."):
        keys = [key for key in wanted if key.startswith(kind)]
        largest = max(float(wanted[key].norm()) for key in keys)
        for key in keys:
            seen = moved(wanted, key) if kind == "weight." else ...
            size = float(wanted[key][seen].norm())
            difference = float((found[key] - wanted[key])[seen].norm())
            # A gradient that is rounding alone (a key's bias) is compared with the largest one.
            floor = 0.0 if kind == "weight." else 1e-6 * largest
            assert difference <= max(limits[kind] * size, floor), (key, difference, size)


def moved(wanted: dict[str, Tensor], key: str) -> Tensor:
    """The elements of a weight whose gradient is more than rounding, which Adam would blow up."""
    gradients = {n: t for n, t in wanted.items() if n.startswith("exp_avg.")}
    name = key.replace("weight.", "exp_avg.", 1)
    if name not in gradients:
        return torch.ones_like(wanted[key], dtype=torch.bool)  # it is frozen
    largest = max(float(t.norm()) for t in gradients.values())
    own = gradients[name]
    rounding = max(1e-4 * largest, 1e-2 * float(own.norm())) / own.numel() ** 0.5
    return own.abs() > rounding


def dump(steps: Path, processes: int, model: str, sharding: str, budget: str, file: str) -> Path:
    return steps / f"{processes}-{model}-{sharding}-{budget}" / f"{file}.safetensors"


@every_first
def test_a_step_of_many_processes_is_that_of_one(
    steps: Path, processes: int, model: str, sharding: str, budget: str
) -> None:
    found = load_file(dump(steps, processes, model, sharding, budget, f"first-{processes}"))
    alone = "double" if sharding == "double" else "local"
    wanted = load_file(dump(steps, 1, model, alone, "whole", "first-1"))
    assert {k for k in wanted if not k.startswith("step.")} <= found.keys()
    forgets = model.startswith("delta_nets") and model.endswith("adapters")
    usual = LONG_MEMORY if forgets else FLOAT32
    assert_same_step(found, wanted, FLOAT64 if sharding == "double" else usual)


@every_second
def test_a_checkpoint_of_two_processes_goes_on_with_one_and_with_four(
    steps: Path, processes: int, model: str, sharding: str
) -> None:
    found = load_file(dump(steps, 2, model, sharding, "whole", f"second-{processes}"))
    wanted = load_file(dump(steps, 1, model, "local", "whole", "second-1"))
    # It starts where the first step's rounding, blown up by Adam, has moved the weights.
    assert_same_step(found, wanted, dict.fromkeys(FLOAT32, 1e-4))


STEPS = 6


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_digits(folder / "digits", train=24, test=4)
    return folder


REWARD = """
def varied(completions, **columns):
    return [len(str(text)) % 5 / 4 for text in completions]
"""


def asked(runs: Path) -> Path:
    """Questions about the pictures of digits."""
    file = runs / "digits" / "digit_count" / "asked.jsonl"
    shown = sorted((file.parent / "images").glob("*train*.png"))
    rows = [{"image": f"images/{path.name}", "question": "How many?"} for path in shown]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def run_command(runs: Path, name: str, model: str, sharding: str, *flags: str) -> list[str]:
    """A run of two processes; a model that was not trained is paid for what its answers vary in."""
    backend, data, path = {}, {}, Path(TINY)
    if model != "shipped":
        path = runs / model
        (runs / "reward.py").write_text(REWARD)
        function = {"function": f"{runs / 'reward.py'}:varied"}
        data = {"task": "custom", "path": str(asked(runs)), "params": function, "eval_path": None}
    if not path.exists():
        family_policy(model).save(path)
    if sharding != "local":
        text = (CONFIGS / f"{sharding}.json").read_text().replace("/local_nvme", str(runs / "nvme"))
        settings = runs / f"{sharding}.json"
        settings.write_text(text)
        backend = {"backend": "deepspeed", "deepspeed": str(settings)}
    config = run_config(
        runs / name,
        runs / "digits",
        model={"path": str(path)},
        data=data,
        algorithm={"kl_coefficient": 0.02},
        trainer={"steps": STEPS, "prompts_per_step": 3, "checkpoint_every": 2, **backend},
    )
    file = write_config(runs / f"{name}.yaml", config)
    return [*TORCHRUN, "2", "-m", "mmrl.cli", "train", str(file), *flags]


def swapped(runs: Path) -> set[str]:
    """Processes whose optimiser has files on the disk."""
    return {path.parent.name for path in (runs / "nvme").glob("*/optimizer/*/*.swp")}


every_run = pytest.mark.parametrize(
    ("model", "sharding"),
    [
        *(("shipped", s) for s in ("local", "zero2", "zero3", "zero2_offload", "zero3_nvme")),
        *(("qwen3_5", s) for s in ("zero2", "zero3")),
        *((model, "zero3") for model in ("qwen3_5_moe", "lfm2_vl", "nemotron_h_omni")),
    ],
)


@every_run
def test_a_killed_process_ends_the_run_and_resume_is_exact(
    runs: Path, model: str, sharding: str
) -> None:
    if sharding == "zero3_nvme" and not Path("/usr/include/libaio.h").is_file():
        pytest.skip("DeepSpeed builds its file access with libaio's headers")
    name, whole = f"killed-{model}-{sharding}", f"whole-{model}-{sharding}"
    done = subprocess.run(run_command(runs, whole, model, sharding), cwd=ROOT, env=ENVIRONMENT)
    assert done.returncode == 0
    shutil.rmtree(runs / "nvme", ignore_errors=True)

    with (runs / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            run_command(runs, name, model, sharding),
            cwd=ROOT,
            env=ENVIRONMENT,
            stderr=log,
            stdout=log,
        )
        while (
            process.poll() is None and len(list(Journal(runs / name / "metrics.jsonl").rows())) < 3
        ):
            time.sleep(0.05)
        ranks = children(process.pid)
        assert swapped(runs) == ({"rank0", "rank1"} if sharding == "zero3_nvme" else set())
        os.kill(ranks[1], signal.SIGKILL)
        started = time.monotonic()
        assert process.wait(timeout=60) != 0
        assert time.monotonic() - started < 60
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    said = (runs / f"{name}.log").read_text()
    assert "Signal 9 (SIGKILL)" in said

    command = run_command(runs, name, model, sharding, "--resume")
    assert subprocess.run(command, cwd=ROOT, env=ENVIRONMENT).returncode == 0
    found, early, final = (
        saved(runs / n / "checkpoints" / f"step_{step}")
        for n, step in ((name, STEPS), (whole, STEPS - 2), (whole, STEPS))
    )
    assert all(torch.equal(found[key], final[key]) for key in final)
    assert any(not torch.equal(early[key], final[key]) for key in final)
