"""A run that is told to end (SIGTERM, SIGHUP, Ctrl-C) finishes its step and leaves a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mmrl.backend.world import World
from mmrl.errors import Interrupted, Terminated

WORDS = {signal.SIGTERM: "terminated", signal.SIGHUP: "hung up", signal.SIGINT: "interrupted"}
SAME_PRESS_SECONDS = 1.0
"""A launcher passes on what its processes have heard themselves: that is no second time."""


class Stopping:
    """Hears what tells a run to end: at once where nothing is to be saved, else after a step.

    The same signal again ends the step, too. Signals reach the main thread only; a run in another
    one hears none. `quiet` says nothing of it, as all processes of a run but one do.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet, self._in_steps = quiet, False
        self._told: dict[int, float] = {}
        """When each signal was heard first."""

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Listen in a block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # What is ignored stays so: `nohup`, or a shell's background, wants the run to go on.
        heard = [n for n in WORDS if signal.getsignal(n) is not signal.SIG_IGN]
        before: dict[int, Any] = {n: signal.signal(n, self._hear) for n in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Keep what is heard in a block until `told` is asked."""
        self._in_steps = True
        try:
            yield
        finally:
            self._in_steps = False

    def told(self, world: World) -> int:
        """The signal that told any process of the run to end, 0 if none; all ask together."""
        return max(world.gather(next(iter(self._told), 0)))

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        first = self._told.setdefault(number, now)
        if not self._in_steps or now - first > SAME_PRESS_SECONDS:
            raise _ending(number, "`--resume` goes on from the last checkpoint, if any")
        if number == signal.SIGINT and first == now and not self._quiet:
            # Not `print`, which a handler may have interrupted itself.
            os.write(2, b"\nmmrl: finishing the step and saving it; Ctrl-C again stops at once\n")


def ended(number: int, step: int) -> BaseException:
    """What a run raises that was told to end by a signal, and has saved its step."""
    return _ending(number, f"`--resume` goes on from its checkpoint after step {step}")


def _ending(number: int, said: str) -> BaseException:
    text = f"{WORDS[signal.Signals(number)]}; {said}"
    return Interrupted(text) if number == signal.SIGINT else Terminated(text, 128 + number)
