"""The benchmark's own side runs: a step of the real trainer is built and timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[1] / "tools" / "bench_step.py"


def test_a_step_of_mmrl_is_timed(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    small = "--pixels 56 --prompts 1 --group 2 --new-tokens 2 --kl 0.04 --repeats 1 --warmup 0"
    command = [sys.executable, str(TOOL), "--peer", "none", *small.split(), "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(out.read_text(encoding="utf-8"))["results"]["mmrl"]
    assert measured["step"]["median"] > 0
    assert measured["work"]["tower_patches"] == (56 // 14) ** 2 * measured["work"]["tower_calls"]
