"""A run that is told to end (SIGTERM) finishes its step and leaves a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mmrl.backend.world import World
from mmrl.errors import Terminated


class Stopping:
    """Hears SIGTERM: at once where nothing is to be saved, else at the end of a step.

    A second one ends the step, too. Signals reach the main thread only; a run in another one
    hears none.
    """

    def __init__(self) -> None:
        self._told = self._in_steps = False

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Listen in a block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: Any = signal.signal(signal.SIGTERM, self._hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Keep what is heard in a block until `told` is asked."""
        self._in_steps = True
        try:
            yield
        finally:
            self._in_steps = False

    def told(self, world: World) -> bool:
        """True if any process of the run was told to end; all of them ask together."""
        return any(world.gather(self._told))

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._told or not self._in_steps:
            raise Terminated("terminated; `--resume` goes on from the last checkpoint, if any")
        self._told = True


def terminated(step: int) -> Terminated:
    """What to say of a run that ended after a step."""
    return Terminated(f"terminated after step {step}: `--resume` goes on from its checkpoint")
