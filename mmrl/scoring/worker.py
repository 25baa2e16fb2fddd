"""The process in which untrusted text meets a verifier: reads jobs, writes one verdict each.

The parent starts it as `python -m mmrl.scoring.worker FD`, talks over that socket and kills
it when an answer overruns its deadline. It never imports torch and never writes a pickle.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmrl.frame import Mark
from mmrl.rewards import custom
from mmrl.rewards.own_code import said_of
from mmrl.runlog.journal import plain
from mmrl.scoring.observations import carried_out
from mmrl.scoring.tasks import Together, load_task
from mmrl.task import Task
from mmrl.types import Score

MAX_MARKS = 256
NONCE_BYTES = 16
HEADER = struct.Struct("!I")
"""A message to a worker is its size and a pickle; one back is the job's number, a size and JSON."""


@dataclass(frozen=True, slots=True)
class Setup:
    """First message to a worker: tasks (key -> name and parameters), limits, functions by value.

    The parent enforces `timeout_seconds`. Twice that and a little is also the worker's own kernel
    timer, so that one stuck in a verifier does not outlive a parent that was killed.
    """

    tasks: Mapping[str, tuple[str, Mapping[str, Any]]]
    timeout_seconds: float
    memory_bytes: int | None
    functions: Mapping[str, bytes]
    secrets: frozenset[str] = frozenset()


def send(channel: socket.socket, message: object) -> None:
    """Send what the parent made itself; the other side unpickles it."""
    payload = pickle.dumps(message)
    channel.sendall(HEADER.pack(len(payload)) + payload)


def main() -> None:
    """Serve the parent until its end of the socket closes."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    try:
        serve(channel)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    finally:
        # Threads that a verifier left behind must not keep the process alive.
        os._exit(0)


def serve(channel: socket.socket) -> None:
    """Load the tasks, report ready, then answer chunks of jobs one verdict at a time.

    A verifier that forks and returns twice is heard once: the other process ends here.
    """
    pid = os.getpid()
    begun, setup = _received(channel)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if setup.memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (setup.memory_bytes, setup.memory_bytes))
    custom.take(setup.functions)
    try:
        tasks = {key: load_task(name, params) for key, (name, params) in setup.tasks.items()}
        for module in {module for task in tasks.values() for module in task.imports}:
            importlib.import_module(module)
    except Exception as error:  # the parent raises it with this text
        _report(channel, begun, _json({"failed": f"{type(error).__name__}: {error}"}))
        return
    _report(channel, begun, _json({"ready": True}))
    while True:
        for nonce, answers, job in _received(channel):
            # The default action of SIGALRM ends the process even while a C call holds the GIL.
            signal.setitimer(signal.ITIMER_REAL, 2 * answers * setup.timeout_seconds + 5)
            verdict = judge(tasks, job)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if os.getpid() != pid:
                return
            _report(channel, nonce, verdict)


def _received(channel: socket.socket) -> Any:
    """The parent's next message; raises EOFError where there is none."""
    (size,) = HEADER.unpack(_exactly(channel, HEADER.size))
    return pickle.loads(_exactly(channel, size))


def _exactly(channel: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = channel.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _report(channel: socket.socket, nonce: bytes, verdict: bytes) -> None:
    channel.sendall(nonce + HEADER.pack(len(verdict)) + verdict)


def judge(tasks: Mapping[str, Task], job: bytes) -> bytes:
    """Score one pickled (task key, gold, answer); with a state behind it, carry out a turn.

    A `Together` is scored in one call. Whatever goes wrong becomes a failure verdict.
    """
    try:
        # Bytes that the parent pickled itself: the model's text is a string in them.
        asked = pickle.loads(job)
        if isinstance(asked, Together):
            return _json({"scores": list(map(_plain, asked.scores(tasks[asked.task])))})
        key, gold, answer, *turn = asked
        if turn:
            return carried_out(tasks[key], gold, turn[0], answer).encode()
        return _json(_plain(tasks[key].score(gold, answer)))
    except MemoryError:
        return _json({"failure": "memory", "reason": "verifier reached the memory limit"})
    except (Exception, SystemExit) as error:  # the verifier is untrusted; the parent counts it
        return _json({"failure": "exception", "reason": said_of(error)[:500]})


def _plain(score: Score) -> dict[str, Any]:
    return {
        "parts": {str(name): float(value) for name, value in score.parts.items()},
        "metric": None if score.metric is None else float(score.metric),
        "status": score.status,
        "reason": score.reason[:500],
        "spans": [
            dataclasses.astuple(dataclasses.replace(span, value=float(span.value)))
            for span in score.spans
        ],
        "evidence": dict(score.evidence),
        "logged": plain(score.logged),
        "marks": [_mark(mark) for mark in score.marks[:MAX_MARKS]],
    }


def _mark(mark: Mark) -> list[Any]:
    numbers = [float(number) for number in mark.numbers]
    label = str(mark.label)[:80]
    return [mark.kind, mark.whose, numbers, label, int(mark.medium), mark.shown, mark.turn]


def _json(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode()


if __name__ == "__main__":
    main()
