"""The benchmark of recurrent layers runs, and both of its sides compute the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "bench_recurrent.py"


def test_both_sides_agree_and_are_timed() -> None:
    small = ["--prompt", "100", "--answers", "2", "--length", "3", "--repeats", "1"]
    made = subprocess.run(
        [sys.executable, str(TOOL), *small], capture_output=True, text=True, check=True
    )
    (gap,) = re.findall(r"log-probs differ by (\S+)", made.stdout)
    assert float(gap) < 1e-5
    assert re.findall(r"^(\w+): shared", made.stdout, re.M) == ["update", "rollout"]
