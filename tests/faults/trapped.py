"""Runs of the command line in which something goes wrong at a moment that is known.

    python -m tests.faults.trapped TRAP ARGUMENT...

carries one out. `Zygote` forks them from a process that has imported everything: a second each
instead of ten.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
"""Audit events of what changes a folder, beside opening to write."""


@dataclass(frozen=True)
class Trap:
    """What happens when a run comes to its `count`-th moment of a kind, counted from 1.

    Moments are "stage", where a stage begins or ends, and "file", where a file of the run folder
    is opened to write, renamed or removed. What happens is "SIGKILL", "SIGTERM" or "SIGINT" to the
    process, "full" (the disk, from then on), "gone" (the folder `target`), or "jump" (the clock, by
    a day, there and back at every moment). Without a trap moments are counted into `target`.
    """

    at: str = ""
    count: int = 0
    does: str = ""
    folder: str = ""
    target: str = ""
    rank: int = 0

    def set(self) -> None:
        """Lie in wait in this process."""
        if int(os.environ.get("RANK", "0")) != self.rank:
            return
        moments: Counter[str] = Counter()
        lock, inside = threading.Lock(), threading.local()

        def passed(kind: str) -> None:
            if getattr(inside, "busy", False):
                return
            inside.busy = True
            try:
                with lock:
                    moments[kind] += 1
                    now = moments[kind]
                if not self.does:
                    Path(self.target).write_text(json.dumps(moments))
                elif kind == self.at and self._is_due(now):
                    self._strike(now)
            finally:
                inside.busy = False

        self._watch_stages(passed)
        self._watch_files(passed)

    def _is_due(self, now: int) -> bool:
        return now >= self.count if self.does in ("full", "jump") else now == self.count

    def _strike(self, now: int) -> None:
        if self.does == "full":
            raise OSError(28, "No space left on device")
        if self.does == "gone":
            shutil.rmtree(self.target)
        elif self.does == "jump":
            time.time = lambda: time.clock_gettime(0) + (86_400.0 if now % 2 else -86_400.0)
        else:
            os.kill(os.getpid(), getattr(signal, self.does))

    def _watch_stages(self, passed: Any) -> None:
        from mmrl.runlog.metrics import Clock

        stage = Clock.stage

        @contextmanager
        def watched(clock: Clock, name: str) -> Iterator[None]:
            passed("stage")
            with stage(clock, name):
                yield
            passed("stage")

        Clock.stage = watched  # type: ignore[method-assign]

    def _watch_files(self, passed: Any) -> None:
        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open":
                path, _, flags = arguments
                if not flags & WRITES:
                    return
            elif event in CHANGES:
                path = arguments[0]
            else:
                return
            if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.folder):
                passed("file")

        sys.addaudithook(hook)


def carry_out(arguments: Sequence[str], trap: Trap | None) -> int:
    """A command with a trap in it; returns its exit code."""
    from mmrl.cli import main

    if trap is not None:
        trap.set()
    return main(arguments)


class Zygote:
    """A process that has imported what a run needs, and forks one for each `start`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, "zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "up"

    def start(self, arguments: Sequence[str], log: Path, trap: Trap | None = None) -> int:
        """Begin a command whose output goes to `log`; returns its process id."""
        asked = {"arguments": arguments, "log": str(log), "trap": trap and asdict(trap)}
        return int(self._ask(asked))

    def wait(self, process: int) -> int:
        """How a command ended: its exit code, or minus the signal that ended it."""
        return int(self._ask({"wait": process}))

    def run(self, arguments: Sequence[str], log: Path, trap: Trap | None = None) -> int:
        """A command from its start to its end."""
        return self.wait(self.start(arguments, log, trap))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, message: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def serve() -> None:
    """Be a zygote: import, then fork and wait as asked, a JSON line each."""
    import transformers.models.qwen2_5_vl.modeling_qwen2_5_vl  # noqa: F401

    import mmrl.engines.hf_copy
    import mmrl.train.run  # noqa: F401

    said = os.fdopen(os.dup(1), "w")
    asked = os.fdopen(os.dup(0), "r")
    print(json.dumps("up"), file=said, flush=True)
    while line := asked.readline():
        message = json.loads(line)
        if "wait" in message:
            _, status = os.waitpid(message["wait"], 0)
            print(json.dumps(os.waitstatus_to_exitcode(status)), file=said, flush=True)
            continue
        child = os.fork()
        if child == 0:
            said.close()
            asked.close()
            _become(Path(message["log"]))
            trap = Trap(**message["trap"]) if message["trap"] else None
            sys.exit(carry_out(message["arguments"], trap))
        print(json.dumps(child), file=said, flush=True)


def _become(log: Path) -> None:
    """Be a process of one's own that reads nothing and writes to a file."""
    os.setsid()
    nothing, file = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT)
    os.ftruncate(file, 0)
    for own, number in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(own, number)


if __name__ == "__main__":
    if sys.argv[1] == "zygote":
        serve()
    else:
        given = json.loads(sys.argv[1])
        sys.exit(carry_out(sys.argv[2:], Trap(**given) if given else None))
