"""Every launcher, and two nodes on one host, carry the same run out."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.engines.launching import BIN, ENVIRONMENT, ROOT, TORCHRUN
from tests.engines.steps import CONFIGS
from tests.runs import make_digits, run_config, write_config

pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

STEPS = 2


def free_port() -> str:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launchers")
    make_digits(folder / "digits", train=12, test=2)
    return folder


def train(workspace: Path, name: str, steps: int = STEPS) -> list[str]:
    """What a launcher is given to run in every process."""
    trainer = {"backend": "deepspeed", "deepspeed": str(CONFIGS / "zero2.json")}
    config = run_config(
        workspace / name,
        workspace / "digits",
        trainer={"steps": steps, "prompts_per_step": 3, **trainer},
    )
    return ["mmrl.cli", "train", str(write_config(workspace / f"{name}.yaml", config))]


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(*started: subprocess.Popen[str]) -> None:
    for process in started:
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said[-4000:]


def weights(workspace: Path, name: str) -> dict[str, Tensor]:
    return load_file(workspace / name / "checkpoints" / f"step_{STEPS}" / "model.safetensors")


@pytest.fixture(scope="module")
def wanted(workspace: Path) -> dict[str, Tensor]:
    """Where a run of two processes under torchrun ends."""
    finish(start([*TORCHRUN, "2", "-m", *train(workspace, "torchrun")]))
    return weights(workspace, "torchrun")


def assert_same_run(workspace: Path, name: str, wanted: dict[str, Tensor]) -> None:
    found = weights(workspace, name)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert (workspace / name / "report.html").is_file()


def test_deepspeed_and_accelerate_start_the_run_that_torchrun_starts(
    workspace: Path, wanted: dict[str, Tensor]
) -> None:
    port = free_port()
    deepspeed = ["--num_accelerators", "2", "--master_port", port, "--no_local_rank", "--module"]
    finish(start([str(BIN / "deepspeed"), *deepspeed, *train(workspace, "deepspeed")]))
    assert_same_run(workspace, "deepspeed", wanted)

    # Without --multi_gpu accelerate starts one process only; it does not look for a GPU.
    accelerate = ["launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    accelerate += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    accelerate += ["--main_process_port", free_port(), "-m"]
    finish(start([str(BIN / "accelerate"), *accelerate, *train(workspace, "accelerate")]))
    assert_same_run(workspace, "accelerate", wanted)


def node(port: str, module: Sequence[str]) -> list[str]:
    """The command on either of two nodes with a process each."""
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", port]
    shape = ["--nnodes", "2", "--nproc-per-node", "1"]
    return [sys.executable, "-m", "torch.distributed.run", *shape, *meeting, "-m", *module]


def test_two_nodes_are_two_processes(workspace: Path, wanted: dict[str, Tensor]) -> None:
    port, module = free_port(), train(workspace, "nodes")
    finish(*[start(node(port, module)) for _ in range(2)])
    assert_same_run(workspace, "nodes", wanted)


def test_a_lost_node_ends_the_run(workspace: Path) -> None:
    """Killed with its launcher, as when a machine goes down."""
    port, module = free_port(), train(workspace, "lost", steps=1000)
    nodes = [start(node(port, module)) for _ in range(2)]
    children = Path(f"/proc/{nodes[1].pid}/task/{nodes[1].pid}/children")
    log = workspace / "lost" / "metrics.jsonl"
    while not log.is_file() and nodes[0].poll() is None:
        time.sleep(0.05)
    workers = children.read_text().split()
    nodes[1].kill()
    subprocess.run(["kill", "-9", *workers], check=True)
    said, _ = nodes[0].communicate(timeout=60)
    assert nodes[0].returncode != 0
    assert "lost another process of this run" in said, said[-4000:]
