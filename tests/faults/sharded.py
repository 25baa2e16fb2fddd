"""Runs of two processes under ZeRO-2: one of them dies, or both with their launcher, also early."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from tests.engines.launching import ENVIRONMENT, ROOT, TORCHRUN
from tests.engines.steps import CONFIGS
from tests.faults.kills import Bench
from tests.faults.subjects import KL, Subject, Traces, leftovers
from tests.faults.trapped import Trap

SUBJECT = Subject(
    "zero2",
    "two processes, optimiser and gradients sharded",
    {
        "algorithm": KL,
        "trainer": {
            "backend": "deepspeed",
            "deepspeed": str(CONFIGS / "zero2.json"),
            "exchange_timeout_seconds": 120,
        },
    },
)
PATIENCE_SECONDS = 600.0


def start(bench: Bench, run: Path, trap: Trap | None, *flags: str) -> subprocess.Popen[bytes]:
    """torchrun, with a trap in one of its two processes."""
    config = SUBJECT.config(bench.workspace, run)
    given = json.dumps(asdict(trap) if trap else {})
    module = ["-m", "tests.faults.trapped", given, "train", str(config), *flags]
    return subprocess.Popen(
        [*TORCHRUN, "2", *module],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=(run.parent / "said.txt").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def whole(bench: Bench) -> Traces:
    """What a run leaves that nothing happens to."""
    run = bench.folder("zero2")
    assert start(bench, run, None).wait(PATIENCE_SECONDS) == 0, bench.said(run)
    return traces(run)


def traces(run: Path) -> Traces:
    """A sharded run's: the optimiser's state of both processes together."""
    for folder in (run / "checkpoints").glob("step_*"):
        _join(folder / "trainer")
    return Traces.of(run)


def _join(folder: Path) -> None:
    """Write the parts of an optimiser's state into one file, as a run of one process does."""
    from safetensors.torch import load_file, save_file

    parts = sorted(folder.glob("optimizer-*.safetensors"))
    together = {name: value for part in parts for name, value in load_file(part).items()}
    save_file(together, folder / "optimizer.safetensors")


def one_dies(bench: Bench, unharmed: Traces, rank: int, moment: int) -> str:
    """Kill one process at a stage: the run ends, and goes on exactly."""
    run = bench.folder("zero2")
    process = start(bench, run, Trap("stage", moment, "SIGKILL", folder=str(run), rank=rank))
    if process.wait(PATIENCE_SECONDS) == 0:
        return "it was not killed"
    return _resumed(bench, run, unharmed)


def all_die(bench: Bench, unharmed: Traces, seconds: float) -> str:
    """Kill the launcher and both processes so long after their start, and start again."""
    run = bench.folder("zero2")
    process = start(bench, run, None)
    time.sleep(seconds)
    subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
    process.wait(PATIENCE_SECONDS)
    return _resumed(bench, run, unharmed)


def _resumed(bench: Bench, run: Path, unharmed: Traces) -> str:
    flags = ("--resume",) if run.exists() else ()
    process = start(bench, run, None, *flags)
    try:
        code = process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
        return f"it did not end in {PATIENCE_SECONDS:g} s: {bench.said(run)[-300:]}"
    if code != 0:
        return f"`--resume` ended with {code}: {bench.said(run)[-300:]}"
    return str(leftovers(run) or "") or traces(run).difference(unharmed)
