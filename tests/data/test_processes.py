"""Processes of a run share an index and what is small: each holds the pictures of a few rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_tables import parquet
from tests.engines.launching import ENVIRONMENT, TORCHRUN
from tests.modalities.test_image import png
from tests.runs import run_config, write_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROWS, KIB = 800, 96
RUN = """
import json, os, pickle, sys
import torch.distributed as dist
from mmrl.cli import main

sent, gather = [], dist.all_gather_object

def counted(values, value, group=None):
    sent.append(len(pickle.dumps(value)))
    gather(values, value, group=group)

dist.all_gather_object = counted
code = main(["train", sys.argv[1]])
status = open("/proc/self/status").read().split()
found = {"code": code, "sent": max(sent), "peak": int(status[status.index("VmHWM:") + 1])}
open(f"{sys.argv[2]}.{os.environ['RANK']}", "w").write(json.dumps(found))
"""


def told(folder: Path, name: str, limit: int | None) -> list[dict[str, int]]:
    """What each of two processes sent at most at once [bytes], and held at most [KiB]."""
    data = {"task": "custom", "path": str(folder / "d.parquet"), "limit": limit}
    data |= {"params": {"function": "mmrl.tasks.custom.example:exact_match"}}
    config = run_config(folder / name, folder, trainer={"steps": 2, "prompts_per_step": 4})
    config["data"] = data
    path = write_config(folder / f"{name}.yaml", config)
    (folder / "run.py").write_text(RUN)
    subprocess.run(
        [*TORCHRUN, "2", str(folder / "run.py"), str(path), str(folder / f"{name}.told")],
        env={**ENVIRONMENT, "PYTHONPATH": ":".join(sys.path)},
        check=True,
    )
    return [json.loads((folder / f"{name}.told.{rank}").read_text()) for rank in (0, 1)]


def test_each_process_holds_an_index_and_sends_no_picture(tmp_path: Path) -> None:
    """80 MB of pictures in the rows; no process comes to hold half of them, or to send one."""
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (184, 184, 3), dtype=np.uint8)
    held = png(Image.fromarray(noise))
    assert len(held) > KIB << 10
    rows = [
        {"prompt": f"q{i}", "answer": "a", "image": {"bytes": held + i.to_bytes(4), "path": None}}
        for i in range(ROWS)
    ]
    parquet(tmp_path / "d.parquet", rows, size=100)
    few, every = told(tmp_path, "few", 16), told(tmp_path, "every", None)
    for one, all_rows in zip(few, every, strict=True):
        assert one["code"] == all_rows["code"] == 0
        assert all_rows["sent"] < len(held)
        assert all_rows["peak"] - one["peak"] < ROWS * KIB // 2
