"""The benchmark runs both sides: a step of the real trainers is built, timed and compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="compares with TRL, which the extra `test` installs")

TOOL = Path(__file__).parents[2] / "tools" / "bench_step.py"


def test_a_step_of_both_sides_is_timed(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    small = "--pixels 56 --prompts 1 --group 2 --new-tokens 2 --kl 0.04 --repeats 1 --warmup 0"
    command = [sys.executable, str(TOOL), *small.split(), "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(out.read_text(encoding="utf-8"))["results"]
    for side, towers in (("mmrl", 1), ("trl", 2)):
        assert measured[side]["step"]["median"] > 0
        work = measured[side]["work"]
        # The peer's tower sees the image once for each answer of the group.
        assert work["tower_patches"] == towers * (56 // 14) ** 2 * work["tower_calls"]
    # One picture and its prompt are run once here, in the rollout and for the update alike.
    assert measured["mmrl"]["over_floor"] == {"tower": 1.0, "language": 1.0}
    assert measured["trl"]["over_floor"]["tower"] > 2
