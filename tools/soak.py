"""Long runs of the smallest model: whether memory, files and threads stay where they are.

    python tools/soak.py                        # 2,000 steps on pictures, 300 on clips
    python tools/soak.py --steps 2000 --clips 0

While the run goes on, its resident memory, open files and threads, and those of its children, are
read from outside at every step that it reports; of WINDOW steps the least counts, since a reading
falls anywhere in a step. Freed memory goes back to the system at once: a C library that keeps it
for later, as it does by default, makes a run look larger than what it holds. Prints a table; exit
code 1 where memory rises by MOST_MIB or more per 100 steps after the first 100 steps, or files or
threads are more at the end. Linux only.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmrl.runlog.journal import parse_line  # noqa: E402
from tests.runs import make_digits, run_config, write_config  # noqa: E402

MOST_MIB = 1.0
FIRST = 100
"""Steps in which caches fill."""
WINDOW = 20
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Reading:
    """What a run holds after a step: MiB of its own and of its children, files, threads."""

    step: int
    own_mib: float
    children_mib: float
    files: int
    threads: int


def readings(command: Sequence[str], metrics: Path) -> Iterator[Reading]:
    """Start a run and read what it holds whenever it has reported a step."""
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **AT_ONCE})
    read, step = 0, 0
    try:
        while process.poll() is None:
            time.sleep(0.05)
            if not metrics.exists():
                continue
            with metrics.open("rb") as file:
                file.seek(read)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            rows = [row for line in whole.splitlines(keepends=True) if (row := parse_line(line))]
            read += len(whole)
            if rows:
                step = rows[-1]["step"]
                yield held(process.pid, step)
    finally:
        process.kill()
    assert process.wait() == 0, f"the run ended with {process.returncode} after step {step}"


def held(process: int, step: int) -> Reading:
    """What a process and its children hold."""
    own = Path("/proc") / str(process)
    status = (own / "status").read_text()
    threads = int(status.partition("Threads:")[2].split()[0])
    children = (own / "task" / str(process) / "children").read_text().split()
    return Reading(
        step,
        _resident(own),
        sum(_resident(Path("/proc") / child) for child in children),
        sum(1 for _ in (own / "fd").iterdir()),
        threads,
    )


def _resident(process: Path) -> float:
    try:
        status = (process / "status").read_text()
    except OSError:  # it ended meanwhile
        return 0.0
    said = status.partition("VmRSS:")[2].split()
    return int(said[0]) / 1024 if said else 0.0


def least(found: Sequence[Reading]) -> list[Reading]:
    """What was held in each window after the first steps: the least of each kind."""
    windows: dict[int, list[Reading]] = {}
    for one in found:
        if one.step > FIRST:
            windows.setdefault((one.step - FIRST - 1) // WINDOW, []).append(one)
    return [
        Reading(
            windows[number][-1].step,
            min(one.own_mib for one in windows[number]),
            min(one.children_mib for one in windows[number]),
            min(one.files for one in windows[number]),
            min(one.threads for one in windows[number]),
        )
        for number in sorted(windows)
    ]


def slope(late: Sequence[Reading], name: str) -> float:
    """MiB per 100 steps, by least squares."""
    steps = np.array([one.step for one in late], dtype=float)
    values = np.array([getattr(one, name) for one in late], dtype=float)
    return float(np.polyfit(steps, values, 1)[0] * 100)


def soak(name: str, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Carry a run out; returns what it held and how that changed."""
    path = write_config(folder / f"{name}.yaml", config)
    started = time.monotonic()
    command = [sys.executable, "-m", "mmrl.cli", "train", str(path)]
    late = least(list(readings(command, Path(config["run"]) / "metrics.jsonl")))
    first, last = late[0], late[-1]
    return {
        "run": name,
        "steps": last.step,
        "seconds": round(time.monotonic() - started, 1),
        "own_mib_per_100": round(slope(late, "own_mib"), 3),
        "children_mib_per_100": round(slope(late, "children_mib"), 3),
        "first": asdict(first),
        "last": asdict(last),
    }


def is_flat(result: dict[str, Any]) -> bool:
    """Whether a run holds at its end what it held after its first steps."""
    first, last = result["first"], result["last"]
    return (
        result["own_mib_per_100"] < MOST_MIB
        and result["children_mib_per_100"] < MOST_MIB
        and last["files"] <= first["files"]
        and last["threads"] <= first["threads"]
    )


def pictures(folder: Path, steps: int) -> dict[str, Any]:
    """The smallest run: two pictures a step, four answers each."""
    digits = make_digits(folder / "digits", train=100, test=8)
    trainer = {"steps": steps, "prompts_per_step": 2, "checkpoint_every": 100}
    return run_config(folder / "pictures", digits, trainer=trainer)


def clips(folder: Path, steps: int) -> dict[str, Any]:
    """The same on clips, each of which is decoded anew in every epoch."""
    importlib.import_module("mmrl.data_recipes.modalities").build(
        None, folder / "modalities", train=60, validation=2, test=4
    )
    path = str(folder / "modalities" / "video" / "train.jsonl")
    return {
        **pictures(folder, steps),
        "run": str(folder / "clips"),
        "data": {"task": "temporal_grounding", "path": path, "params": {"think": "none"}},
        "media": {"video": {"frames": 8}},
    }


def main() -> int:
    """Run both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = (("pictures", pictures, arguments.steps), ("clips", clips, arguments.clips))
        for run, make, steps in asked:
            if steps:
                results.append(soak(run, make(folder, steps), folder))
                print(json.dumps(results[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return int(not all(map(is_flat, results)))


if __name__ == "__main__":
    sys.exit(main())
