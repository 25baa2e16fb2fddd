"""Memory that `mmrl doctor` foresees against what runs peak at: six configurations.

    python tools/bench_memory.py [--only NAME ...]

Each configuration trains three steps in a process of its own on pictures that the tool makes, with
random weights of released proportions. Measured is the process's peak of resident memory over what
it has after a run of one short answer. Linux only; prints a table, exit code 1 where a
prediction is off by more than MOST.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

MOST = 0.15
PICTURES = 24
MIB = 1 << 20

BASE: Mapping[str, Any] = {
    "algorithm": {"name": "grpo", "group_size": 8, "kl_coefficient": 0.0},
    "rollout": {"max_new_tokens": 64},
    "trainer": {
        "steps": 3,
        "prompts_per_step": 8,
        "tokens_per_micro_batch": 4096,
        "checkpoint_every": 0,
    },
    "model": {"gradient_checkpointing": False},
}
RUNS: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "everything learns": (448, {}),
    "recomputation": (448, {"model": {"gradient_checkpointing": True}}),
    "LoRA, tower frozen": (448, {"model": {"lora": {"rank": 16}}}),
    "tower frozen, KL": (
        448,
        {"model": {"freeze_tower": True}, "algorithm": {"kl_coefficient": 0.04}},
    ),
    "long answers": (224, {"rollout": {"max_new_tokens": 512}, "trainer": {"prompts_per_step": 4}}),
    "bfloat16": (
        224,
        {"model": {"dtype": "bfloat16"}, "trainer": {"steps": 1}},
    ),
}
"""By name: the side of the pictures, and what differs from BASE."""


SMALLEST = {
    "algorithm": {"name": "grpo", "group_size": 2},
    "rollout": {"max_new_tokens": 2},
    "trainer": {"steps": 1, "prompts_per_step": 1, "checkpoint_every": 0},
}
"""A run after which everything is imported and started."""
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Has the C library give freed memory back at once: it keeps it otherwise, to be used again."""


def main() -> None:
    """Foresee and measure each run, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        what, name, folder = given.child
        print(json.dumps(CHILDREN[what](name, Path(folder))))
        return
    print("| run | foreseen, MiB | measured, MiB | off by |\n|---|---|---|---|")
    off = [compared(name) for name in given.only]
    sys.exit(any(abs(share) > MOST for share in off))


def compared(name: str) -> float:
    """Print the row of a run; return by what share of the measured peak the plan is off."""
    with tempfile.TemporaryDirectory() as folder:
        for what in CHILDREN:
            words = [sys.executable, __file__, "--child", what, name, folder]
            environment = {**os.environ, **AT_ONCE}
            made = subprocess.run(
                words, check=True, stdout=subprocess.PIPE, text=True, env=environment
            )
        found = json.loads(made.stdout.splitlines()[-1])
    share = found["foreseen"] / found["measured"] - 1
    print(f"| {name} | {found['foreseen']:.0f} | {found['measured']:.0f} | {share:+.0%} |")
    print(found, file=sys.stderr)
    return float(share)


def figures(name: str, folder: Path) -> dict[str, Any]:
    """MiB foreseen and measured of one run, in this process."""
    from mmrl.config import RunConfig
    from mmrl.doctor.report import plans
    from mmrl.train.run import train
    from mmrl.validation import validate

    values: dict[str, Any] = {
        "run": str(folder / "run"),
        "data": {"task": "digit_count", "path": str(folder / "records.jsonl")},
        "model": {"path": str(folder / "model")},
    }
    config = validate(RunConfig, merged(merged(values, BASE), RUNS[name][1]), "bench")
    (planned,) = plans(config)
    first = {**values, "run": str(folder / "first")}
    train(validate(RunConfig, merged(merged(first, RUNS[name][1]), SMALLEST), "bench"))
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    train(config)
    parts = {
        name: round(size / MIB)
        for name, size in planned.figures()["bytes"].items()
        if isinstance(size, int) and size > MIB
    }
    return {
        "foreseen": planned.peak(planned.plan) / MIB,
        "measured": resident("VmHWM") - before,
        "before": before,
        "parts": parts,
    }


def written(name: str, folder: Path) -> None:
    """Write a run's model, pictures and records."""
    from bench_sides import Workload, build

    build(Workload(str(folder), PICTURES, 8, 8, 64, RUNS[name][0], 0.0, "float32", 1e-4, 0, 8))
    asked = "<image>How many handwritten digits are in the picture? Answer with a number."
    rows = [
        {"id": str(i), "prompt": asked, "image": f"{i}.png", "count": 1 + i % 8}
        for i in range(PICTURES)
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of both; the other's settings win."""
    made = dict(one)
    for key, value in other.items():
        made[key] = merged(made.get(key, {}), value) if isinstance(value, Mapping) else value
    return made


def resident(field: str) -> float:
    """MiB of this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


CHILDREN: Mapping[str, Callable[[str, Path], Any]] = {"write": written, "run": figures}

if __name__ == "__main__":
    main()
