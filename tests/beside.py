"""Two processes of a run as threads of this one, for tests of what they do together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from mmrl.backend.world import World
from mmrl.policy.attention import stand_apart

T = TypeVar("T")
PATIENCE = 600.0
"""Seconds until a process that does not come to an exchange is given up."""


@dataclass(frozen=True)
class Threads(World):
    """A process of two whose other is a thread of this one."""

    meeting: Any = None
    said: Any = None

    def gather(self, value: Any) -> list[Any]:
        """The values of both, once both are there."""
        self.meeting.wait()
        self.said[self.rank] = value
        self.meeting.wait()
        return list(self.said)


def both(call: Callable[[World], T]) -> tuple[T, T]:
    """What a call comes to in each of two processes."""
    meeting, said = threading.Barrier(2, timeout=PATIENCE), [None, None]

    def process(rank: int) -> T:
        stand_apart()
        try:
            return call(Threads(rank, 2, meeting=meeting, said=said))
        except BaseException:
            meeting.abort()  # the other one need not wait
            raise

    with ThreadPoolExecutor(2) as pool:
        first, other = pool.map(process, (0, 1))
    return first, other
