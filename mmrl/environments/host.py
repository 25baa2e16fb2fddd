"""A process that plays other people's environments: it calls a model's endpoint as their users do.

Environments bring dependencies of their own, so their process may be of another interpreter
(`python`) and needs nothing of this package. It reads and writes one JSON object a line:

    -> {"play": id, "index": n, "seed": s, "url": ..., "model": ...}
    <- {"began": id, "about": {...}}                 what the environment itself says of the episode
    <- {"ended": id, "reward": r, "error": ""}       the reward is null where there is none
    -> {"stop": id}

What else it prints is kept for the reason that it fails with.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmrl.errors import UserError
from mmrl.modalities.child_environment import without_secrets
from mmrl.rewards.chat_messages import Message, messages_of
from mmrl.types import Sample

HOSTS = Path(__file__).parent / "hosts"
START_SECONDS = 180.0
LINES = 20


@dataclass(frozen=True)
class Ended:
    """How an episode ended: its reward, or why there is none."""

    id: str
    reward: float | None
    error: str = ""


@dataclass(frozen=True)
class Hosting:
    """How a task's episodes are played: their process, and a sample's first call and place.

    `place` is the episode's index and the seed of what is random in it.
    """

    start: Callable[[queue.Queue[Any]], Host]
    first_call: Callable[[Sample], tuple[Message, ...]]
    place: Callable[[Sample], tuple[int, int]]


def hosting_of(task: Any) -> Hosting:
    """That of a task with `host`, `settings` and `python`; its samples begin with `messages`."""

    def start(ended: queue.Queue[Any]) -> Host:
        return Host(HOSTS / f"{task.host}_host.py", task.settings, ended, task.python)

    def first_call(sample: Sample) -> tuple[Message, ...]:
        assert sample.start is not None, "a hosted episode begins somewhere"
        return messages_of(sample.start.state["messages"])

    def place(sample: Sample) -> tuple[int, int]:
        return int(sample.gold["index"]), zlib.crc32(sample.id.encode())

    return Hosting(start, first_call, place)


@dataclass(frozen=True)
class Began:
    """An episode that has begun, and what its environment knows of it."""

    id: str
    about: Mapping[str, Any]


class Host:
    """A running process; `ended` gets what it says. Raises UserError where it does not start."""

    def __init__(
        self,
        program: Path,
        settings: Mapping[str, Any],
        ended: queue.Queue[Any],
        python: str = "",
    ) -> None:
        self._ended = ended
        self._noise: deque[str] = deque(maxlen=LINES)
        self._ready: queue.Queue[Mapping[str, Any]] = queue.Queue()
        self._lock = threading.Lock()
        self._playing: set[str] = set()
        self._over = ""
        interpreter = python or sys.executable
        try:
            self._process = subprocess.Popen(
                [interpreter, str(program), json.dumps(dict(settings))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env=without_secrets(),
            )
        except OSError as error:
            raise UserError(f"no interpreter {interpreter}: {error}") from error
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._to = self._process.stdin
        threads = ((self._read, self._process.stdout), (self._keep, self._process.stderr))
        for work, stream in threads:
            threading.Thread(target=work, args=(stream,), daemon=True).start()
        try:
            first = self._ready.get(timeout=START_SECONDS)
        except queue.Empty:
            first = {"error": f"it is not ready within {START_SECONDS:g} s"}
        if "error" in first:
            self.close()
            reason = str(first["error"])
            raise UserError(f"the environments do not start: {reason}{hint(reason)}")
        self.count: int | None = first.get("count")
        """How many different episodes there are; None: any number."""

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def play(self, name: str, index: int, seed: int, url: str, model: str) -> None:
        """Begin an episode that calls `url` as `model`; with the process, it ends."""
        with self._lock:
            if self._over:
                return self._ended.put(Ended(name, None, self._over))
            self._playing.add(name)
        self._say({"play": name, "index": index, "seed": seed, "url": url, "model": model})

    def stop(self, name: str) -> None:
        """Give an episode up; nothing more is heard of it."""
        self._take(name)
        self._say({"stop": name})

    def close(self) -> None:
        """End the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            self._to.close()

    def _say(self, value: Mapping[str, Any]) -> None:
        try:
            self._to.write(json.dumps(value) + "\n")
            self._to.flush()
        except OSError:
            return  # its end is told by `_read`

    def _read(self, stream: IO[str]) -> None:
        for line in _lines(stream):
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if not isinstance(value, dict):
                self._noise.append(line)
            elif "ended" in value:
                reward = value.get("reward")
                known = None if reward is None else float(reward)
                self._take(str(value["ended"]))
                self._ended.put(Ended(str(value["ended"]), known, str(value.get("error", ""))))
            elif "began" in value:
                self._ended.put(Began(str(value["began"]), dict(value.get("about") or {})))
            else:
                self._ready.put(value)
        self._process.wait()
        last = " ".join(list(self._noise)[-3:])
        reason = f"its process ended with {self._process.returncode}: {last:.500}"
        self._ready.put({"error": reason})
        with self._lock:
            self._over = reason
            left = sorted(self._playing)
        for name in left:
            self._ended.put(Ended(name, None, reason))

    def _take(self, name: str) -> None:
        with self._lock:
            self._playing.discard(name)

    def _keep(self, stream: IO[str]) -> None:
        for line in _lines(stream):
            self._noise.append(line)


def hint(reason: str) -> str:
    """What to install, where that is what is lacking."""
    for package in ("verifiers", "gymnasium"):
        if f"No module named '{package}'" in reason:
            return f": pip install 'mmrl[{package}]', or name an interpreter that has it (python)"
    return ""


def _lines(stream: IO[str]) -> Any:
    """Lines without their end, until the stream is closed here or there."""
    try:
        for line in stream:
            if line.strip():
                yield line.rstrip("\n")
    except (OSError, ValueError):
        return
