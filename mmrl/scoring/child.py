"""The parent's end of a scoring process: jobs go out, verdicts come in, and each says whose it is.

A verifier may fork and let both return, write into the worker's socket, or stop in the middle of a
message. So every job has a number that nobody can guess, a message with another one is a crash of
its worker, and what has not come whole is not waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from mmrl.errors import UserError
from mmrl.modalities.child_environment import without_secrets
from mmrl.scoring.worker import HEADER, NONCE_BYTES, Setup, send

STARTUP_SECONDS = 300.0  # a reward of the user's may import what takes a while
MAX_VERDICT_BYTES = 1 << 24
PIECE_BYTES = 1 << 16


class Child:
    """One scoring process.

    It works on its jobs in order and reports each before it begins the next, so the first of them
    is the one to blame for a death, and the deadline is that one's.
    """

    def __init__(self, setup: Setup) -> None:
        self.channel, theirs = socket.socketpair()
        self._timeout_seconds = setup.timeout_seconds
        self.starting, self.allowed = True, STARTUP_SECONDS
        self.outstanding: deque[tuple[int, int, bytes]] = deque()
        """Jobs that were handed out: their places, how many answers each has, and their numbers."""
        self.deadline = time.monotonic() + STARTUP_SECONDS
        self._begun, self._read = secrets.token_bytes(NONCE_BYTES), bytearray()
        with theirs:
            self._process = _start_process(theirs, setup)
        with contextlib.suppress(OSError):  # it is dead already: `verdicts` says so
            send(self.channel, (self._begun, setup))

    @property
    def idle(self) -> bool:
        """True if it has nothing to do."""
        return not self.starting and not self.outstanding

    def take(self, jobs: Mapping[int, tuple[int, bytes]]) -> bool:
        """Send it jobs by their places; False if it is no longer fit for any, and took none."""
        if self._said_something():
            return False
        given = [
            (place, answers, secrets.token_bytes(NONCE_BYTES))
            for place, (answers, _) in jobs.items()
        ]
        payloads = [(nonce, answers, jobs[place][1]) for place, answers, nonce in given]
        try:
            send(self.channel, payloads)
        except OSError:
            return False
        self.outstanding.extend(given)
        self._renew_deadline()
        return True

    def verdicts(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """What has come whole: the place of each job and its verdict, one after the other.

        Raises EOFError at the end of the process, ValueError for what is no verdict of its, and
        UserError where the tasks do not load there although they do here.
        """
        while True:
            for message in self._messages():
                if self.starting:
                    if "failed" in message:
                        raise UserError(
                            f"a scoring worker could not load its tasks: {message['failed']}"
                        )
                    self.starting = False
                else:
                    yield self.outstanding[0][0], message
            try:
                piece = self.channel.recv(PIECE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if not piece:
                raise EOFError
            self._read += piece

    def reported(self) -> None:
        """Its first job is done; the clock of the next one starts."""
        self.outstanding.popleft()
        self._renew_deadline()

    def describe_death(self) -> str:
        """Why the channel closed, as the end of a sentence."""
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"

    def kill(self) -> None:
        """End the process and its children, and reap it."""
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _said_something(self) -> bool:
        """True if it died, or wrote something, while it had nothing to do."""
        try:
            self.channel.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _messages(self) -> Iterator[dict[str, Any]]:
        """Messages that have come whole; each must carry the number that is expected next."""
        while self._read:
            expected = self._begun if self.starting else self._expected()
            if self._read[:NONCE_BYTES] != expected[: len(self._read)]:
                raise ValueError("wrote what is no verdict of it")
            if len(self._read) < NONCE_BYTES + HEADER.size:
                return
            (size,) = HEADER.unpack_from(self._read, NONCE_BYTES)
            end = NONCE_BYTES + HEADER.size + size
            if size > MAX_VERDICT_BYTES:
                raise ValueError(f"wrote a verdict of {size} bytes")
            if len(self._read) < end:
                return
            message = json.loads(self._read[NONCE_BYTES + HEADER.size : end])
            del self._read[:end]
            yield message

    def _expected(self) -> bytes:
        return self.outstanding[0][2] if self.outstanding else bytes(NONCE_BYTES)

    def _renew_deadline(self) -> None:
        answers = self.outstanding[0][1] if self.outstanding else 1
        self.allowed = answers * self._timeout_seconds
        self.deadline = time.monotonic() + self.allowed


def _start_process(theirs: socket.socket, setup: Setup) -> subprocess.Popen[bytes]:
    """Start a worker with this process's import path, in a session (hence group) of its own.

    Not `multiprocessing`: its children import the main script again, and torch with it.
    """
    environment = {
        **without_secrets(setup.secrets),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        # One thread a worker; thread pools would also eat the address-space limit.
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "mmrl.scoring.worker", str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=2,
        env=environment,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
