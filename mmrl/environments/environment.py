"""Environments that are alive: what a task's actions do to something outside of the process.

A task parses a turn where untrusted text belongs, in the scoring workers, and puts the action into
its state as plain JSON; an environment carries actions out and says what is then to be seen. It
knows no model and no tokens. The state is the seed and all actions so far, so that an environment
that was lost is made again by playing them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class EnvironmentFailure(Exception):
    """The environment broke, ran out of time or is not there: no verdict, never a bad one."""


@dataclass(frozen=True)
class Seen:
    """What an environment shows after an action: a PNG, and the words that go with it.

    `key` names the state (equal keys: the same state; FIRST_STATE is that of the reset), `outcome`
    is its own verdict so far, 0 to 1; `done`: there is nothing left to do. `reward`: what the
    episode earns, where that is not the outcome.
    """

    png: bytes
    key: str
    text: str = ""
    outcome: float = 0.0
    done: bool = False
    pixel_ratio: float = 1.0
    reward: float | None = None


class Environment(Protocol):
    """One episode's place: reset once, stepped with one action after the other, closed.

    Raises EnvironmentFailure; an action that makes no sense there is no failure.
    """

    async def reset(self, start: Mapping[str, Any]) -> Seen:
        """Begin the episode that `start` (a page and a seed, say) stands for."""
        ...

    async def step(self, action: Mapping[str, Any]) -> Seen:
        """Carry one action out, and wait until what it did is to be seen."""
        ...

    async def close(self) -> None:
        """Leave nothing behind; never raises."""
        ...


class World(Protocol):
    """What environments of a kind live in: a browser for its pages.

    `generation` says how often it has been started.
    """

    generation: int

    async def open(self) -> Environment:
        """A fresh place, in which nothing of earlier episodes is left."""
        ...

    async def restart(self, generation: int) -> None:
        """Start anew what a fresh place in it did not mend, once for each `generation`."""
        ...

    async def close(self) -> None:
        """End it, and all that it started."""
        ...
