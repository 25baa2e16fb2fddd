"""Runs of several processes as a user starts them, for tests: environment, commands, children."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
    # ninja, which builds DeepSpeed's extension, stands beside the interpreter.
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def saved(folder: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, in one file or, of sharded ones, in several."""
    files = folder.glob("*model*.safetensors")
    return {name: value for file in files for name, value in load_file(file).items()}


def children(launcher: int) -> list[int]:
    """The processes of a run, by rank (they are started in that order)."""
    tasks = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return sorted(map(int, tasks))
