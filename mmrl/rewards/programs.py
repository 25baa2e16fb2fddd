"""Python programs of a model: run on given input under limits, judged by output, time and memory.

A program runs in a process of its own without this one's environment, in an empty folder, with
limits of CPU time, memory, output and files, and a deadline; where the kernel has namespaces for
everybody it has no network either (`program_launcher.py`). It reads what its user may read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

LAUNCHER = Path(__file__).with_name("program_launcher.py")
GRACE_SECONDS = 1.0
"""Wall time that a program has beyond its CPU time, at least: machines are shared."""
Ending = Literal["ended", "failed", "time", "memory"]


@dataclass(frozen=True, slots=True)
class ProgramLimits:
    """What a run of a program may use."""

    seconds: float = 2.0
    megabytes: int = 256
    output_bytes: int = 65_536
    characters: int = 20_000


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a run: its output, CPU seconds and peak megabytes beyond an empty program."""

    ending: Ending
    output: str
    error: str
    seconds: float
    megabytes: float


@dataclass(frozen=True, slots=True)
class Case:
    """A test: what a program reads, and what it is to print."""

    given: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Tried:
    """A program on its tests: how many it passes, the first that it does not, what it used."""

    passed: int
    cases: int
    failed: Case | None
    ran: Ran | None
    seconds: float
    megabytes: float

    @property
    def right(self) -> bool:
        """True if it passes all tests."""
        return self.passed == self.cases


def try_program(code: str, cases: Sequence[Case], limits: ProgramLimits) -> Tried:
    """Run a program on each test; one that runs out of time or memory is not run again.

    `seconds` are CPU seconds of all tests, `megabytes` the highest peak. Output is compared line by
    line, without spaces at the ends of lines and empty lines at its end.
    """
    passed, seconds, megabytes = 0, 0.0, 0.0
    failed: tuple[Case, Ran] | None = None
    for case in cases:
        ran = run_program(code, case.given, limits)
        seconds, megabytes = seconds + ran.seconds, max(megabytes, ran.megabytes)
        if ran.ending == "ended" and same_output(ran.output, case.wanted):
            passed += 1
            continue
        failed = failed or (case, ran)
        if ran.ending in ("time", "memory"):
            break
    first, ran_first = failed or (None, None)
    return Tried(passed, len(cases), first, ran_first, seconds, megabytes)


def same_output(said: str, wanted: str) -> bool:
    """Whether two outputs are the same, line by line.

    >>> same_output("1 2 \\n3\\n\\n", "1 2\\n3")
    True
    """
    return _lines(said) == _lines(wanted)


def run_program(code: str, given: str, limits: ProgramLimits = ProgramLimits()) -> Ran:
    """Run a program with `given` as its input; what goes wrong with it is an outcome, no exception.

    Its times and peaks are those beyond an empty program, at least 0.
    """
    ran = _run(code, given, limits)
    idle = _empty(limits)
    return Ran(
        ran.ending,
        ran.output,
        ran.error,
        max(0.0, ran.seconds - idle.seconds),
        max(0.0, ran.megabytes - idle.megabytes),
    )


@lru_cache(maxsize=8)
def _empty(limits: ProgramLimits) -> Ran:
    return _run("", "", limits)


def _run(code: str, given: str, limits: ProgramLimits) -> Ran:
    if len(code) > limits.characters:
        return Ran("failed", "", f"longer than {limits.characters} characters", 0.0, 0.0)
    with TemporaryDirectory(prefix="mmrl-program-") as folder:
        place = Path(folder)
        (place / "program.py").write_text(code, encoding="utf-8", errors="replace")
        (place / "given").write_text(given, encoding="utf-8", errors="replace")
        used = _launch(place, limits)
        said, told = (_read(place / name, limits.output_bytes) for name in ("said", "told"))
    error = told.strip().splitlines()[-1] if told.strip() else ""
    if used is None:
        return Ran("time", said, error, limits.seconds, 0.0)
    status, seconds, peak = used
    return Ran(_ending(status, seconds, error, limits), said, error, seconds, peak)


def _launch(place: Path, limits: ProgramLimits) -> tuple[int, float, float] | None:
    """Exit status, CPU seconds and peak megabytes; None where the deadline ended it."""
    told, channel = os.pipe()
    numbers = (limits.seconds, limits.megabytes, limits.output_bytes, channel)
    command = [sys.executable, "-I", "-S", str(LAUNCHER), str(place / "program.py")]
    with (
        os.fdopen(told, "rb") as report,
        (place / "given").open("rb") as given,
        (place / "said").open("wb") as said,
        (place / "told").open("wb") as error,
    ):
        process = subprocess.Popen(
            [*command, *map(str, numbers)],
            stdin=given,
            stdout=said,
            stderr=error,
            cwd=place,
            env={"HOME": str(place), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
            pass_fds=(channel,),
            start_new_session=True,
        )
        os.close(channel)
        try:
            process.wait(2 * limits.seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)
        fields = report.read().split()
    if len(fields) != 3:
        return -1, 0.0, 0.0
    return int(fields[0]), float(fields[1]), float(fields[2]) / 1024


def _end(process: subprocess.Popen[bytes]) -> None:
    """End whatever is left of the launcher's session, the launcher first."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ending(status: int, seconds: float, error: str, limits: ProgramLimits) -> Ending:
    if status in (-signal.SIGXCPU, -signal.SIGKILL) or seconds > limits.seconds:
        return "time"
    if error.startswith("MemoryError"):
        return "memory"
    return "ended" if status == 0 else "failed"


def _read(file: Path, most: int) -> str:
    with file.open("rb") as opened:
        return opened.read(most).decode("utf-8", "replace")


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
