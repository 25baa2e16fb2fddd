"""Runs that are killed and go on: what they leave must be what they would have left unharmed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.faults.subjects import STEPS, Subject, Traces, leftovers
from tests.faults.trapped import Trap, Zygote

PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Outcome:
    """What came of a fault: `right` or not, and in words."""

    fault: str
    subject: str
    tried: int
    right: bool
    outcome: str


class Bench:
    """A workspace, a zygote, and the unharmed run of each subject."""

    def __init__(self, workspace: Path, zygote: Zygote, rng: np.random.Generator) -> None:
        self.workspace, self.zygote, self.rng = workspace, zygote, rng
        self._whole: dict[str, tuple[Traces, dict[str, int]]] = {}
        self._made = 0

    def folder(self, name: str) -> Path:
        """A new run folder, in a folder of its own."""
        self._made += 1
        folder = self.workspace / "runs" / f"{name}-{self._made}"
        folder.mkdir(parents=True)
        return folder / "run"

    def clear(self) -> None:
        """Remove the run folders so far."""
        shutil.rmtree(self.workspace / "runs", ignore_errors=True)

    def whole(self, subject: Subject) -> tuple[Traces, dict[str, int]]:
        """The traces of a run that nothing happened to, and how many moments it has."""
        if subject.name not in self._whole:
            run = self.folder(subject.name)
            counts = run.parent / "counts.json"
            trap = Trap(folder=str(run.parent / "run"), target=str(counts))
            code = self.train(subject, run, trap)
            assert code == 0, self.said(run)
            self._whole[subject.name] = Traces.of(run), json.loads(counts.read_text())
        return self._whole[subject.name]

    def train(self, subject: Subject, run: Path, trap: Trap | None = None, *flags: str) -> int:
        """Carry a run out, or as much of it as its trap allows."""
        config = subject.config(self.workspace, run)
        return self.zygote.run(["train", str(config), *flags], run.parent / "said.txt", trap)

    def said(self, run: Path) -> str:
        """What the last command on a run wrote."""
        return (run.parent / "said.txt").read_text()


def killed(bench: Bench, subject: Subject, at: str, count: int) -> str:
    """Kill a run at a moment and let it go on; returns what is wrong, "" if nothing is."""
    run = bench.folder(subject.name)
    trap = Trap(at, count, "SIGKILL", folder=str(run))
    code = bench.train(subject, run, trap)
    if code != -signal.SIGKILL:
        return f"it ended with {code} before the kill: {bench.said(run)[-300:]}"
    return resumed(bench, subject, run)


def killed_again_and_again(bench: Bench, subject: Subject, kills: int) -> tuple[int, str]:
    """Kill one run so many times, after a few moments each; returns kills, and what is wrong."""
    run = bench.folder(subject.name)
    done = 0
    for _ in range(20 * kills):
        # A step has 14 moments; a checkpoint comes every other step.
        trap = Trap("stage", int(bench.rng.integers(1, 34)), "SIGKILL", folder=str(run))
        flags = ("--resume",) if run.exists() else ()
        code = bench.train(subject, run, trap, *flags)
        if code not in (0, -signal.SIGKILL):
            return done, f"exit {code}: {bench.said(run)[-300:]}"
        done += code != 0
        if code == 0 or done == kills:
            break
    return done, resumed(bench, subject, run)


def resumed(bench: Bench, subject: Subject, run: Path) -> str:
    """Let a run go on to its end; returns how it differs from one that nothing happened to."""
    if wait_for_the_end_of_workers(run):
        return "processes outlived the run by two minutes"
    flags = ("--resume",) if run.exists() else ()
    code = bench.train(subject, run, None, *flags)
    if code != 0:
        return f"`--resume` ended with {code}: {bench.said(run)[-300:]}"
    if "Traceback" in bench.said(run):
        return "a traceback"
    left = leftovers(run)
    if left:
        return f"left behind: {left}"
    return Traces.of(run).difference(bench.whole(subject)[0])


def wait_for_the_end_of_workers(run: Path) -> list[int]:
    """Processes that still work for a run two minutes after its end; none, as a rule."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := _workers_of(run)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _workers_of(run: Path) -> list[int]:
    """Processes whose standard error is the log of a run."""
    log = (run.parent / "said.txt").stat()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            said = os.stat(process / "fd" / "2")
            zombie = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if (said.st_dev, said.st_ino) == (log.st_dev, log.st_ino) and not zombie:
            found.append(int(process.name))
    return found


def boundaries(bench: Bench, subject: Subject, tries: int) -> list[tuple[str, int]]:
    """Moments to kill a run at: stages and files by turns, spread over all that there are."""
    _, counts = bench.whole(subject)
    moments = []
    for kind in ("stage", "file"):
        every = np.linspace(1, counts[kind], max(2, tries // 2)).round().astype(int)
        shifted = every + bench.rng.integers(-3, 4, len(every))
        moments += [(kind, int(n)) for n in np.clip(shifted, 1, counts[kind])]
    return moments


def every_boundary_of_a_step(step: int) -> list[tuple[str, int]]:
    """All moments of a step: each stage's begin and end (84 moments are six steps)."""
    moments = 14
    assert 1 <= step <= STEPS
    return [("stage", (step - 1) * moments + i + 1) for i in range(moments)]
