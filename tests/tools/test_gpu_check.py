"""The GPU check on a CPU: what it can run there passes, and what breaks is told, not hidden."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("gpu_check")


def setting(check: Any, folder: Path) -> Any:
    return check.Setting(folder, "cpu", check.TINY, 1)


def test_what_breaks_fails_and_what_is_absent_is_skipped(
    check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(setting: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setitem(check.CHECKS, "learning", breaks)
    found = check.carry_out("learning", setting(check, tmp_path))
    assert found["status"] == "failed" and "illegal memory access" in found["why"]
    monkeypatch.setitem(check.CHECKS, "vllm", lambda setting: check.needs("no_such_package"))
    found = check.carry_out("vllm", setting(check, tmp_path))
    assert (found["status"], found["why"]) == ("skipped", "no_such_package is not installed")
    monkeypatch.setitem(check.CHECKS, "learning", lambda setting: {"passed": False, "figures": 1})
    assert check.carry_out("learning", setting(check, tmp_path))["status"] == "failed"


def test_a_process_that_dies_is_a_failure(
    check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "__file__", "/no/such/file.py")
    with (tmp_path / "log").open("w") as log:
        found = check.start("memory", [], setting(check, tmp_path), log)
    assert found["status"] == "failed" and "ended with code" in found["why"]


def test_distances_are_relative(check: Any) -> None:
    numbers = importlib.import_module("gpu_numbers")
    wanted = torch.tensor([3.0, 4.0])
    assert numbers.distance(wanted + torch.tensor([0.0, 0.5]), wanted) == pytest.approx(0.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "gpu_check.py"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--device cpu" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_numbers_hold_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "gpu_check.py"), "--device", "cpu"]
    command += ["--out", str(tmp_path), "--checks", "shared_prefix", "sampled_logprobs", "memory"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads((tmp_path / "check.json").read_text())
    assert done.returncode == 0, (tmp_path / "check.log").read_text()
    found = {name: result["status"] for name, result in report["checks"].items()}
    assert found == {"shared_prefix": "passed", "sampled_logprobs": "passed", "memory": "skipped"}
    float32 = report["checks"]["shared_prefix"]["figures"]["float32"]["shared"]
    assert float32["forward"] < 1e-5 and float32["gradient"] < 1e-5
    assert report["checks"]["sampled_logprobs"]["figures"]["float32"]["max"] < 1e-4
