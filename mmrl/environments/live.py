"""Live environments played beside each other, each within its deadlines, lost ones made again.

Its loop has a thread of its own. An environment is known by the episode's start and its actions so
far, so any call finds the right one or plays the actions in a new one; nothing is saved, and a
resumed run needs nothing but the states that the episodes hold.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mmrl.environments.environment import Environment, EnvironmentFailure, Seen, World
from mmrl.errors import one_line
from mmrl.task import FIRST_STATE
from mmrl.types import MediaRef, Observation, Text

T = TypeVar("T")
TRIES = 3
"""A live one or a fresh place, a fresh place, a fresh world."""
BESIDE = 8
"""Environments at work at once. A page waits for frames, not for cores: eight draw a third more
screens a second than four on two cores, sixteen no more than eight."""
KEPT = 64
"""Environments that stay open: those of a step of 8 x 8 episodes, of which each would otherwise
be played again in every turn. A page is 12 MiB in a headless shell, up to 80 in a Chromium."""
LEFT_AFTER = 64
"""Calls after which a place that nobody went on with is let go first: it was left."""
STEP_SECONDS = 180.0
"""For one try at one turn, replayed actions included."""


@dataclass(frozen=True)
class LiveStep:
    """One turn: where its episode began, all its actions, the last of them still to be done."""

    start: Mapping[str, Any]
    actions: tuple[Mapping[str, Any], ...]

    @property
    def before(self) -> str:
        """What names the environment that the last action is for."""
        return named(self.start, self.actions[:-1])

    @property
    def after(self) -> str:
        """What names it once the last action is done."""
        return named(self.start, self.actions)


def named(start: Mapping[str, Any], actions: Sequence[Mapping[str, Any]]) -> str:
    """What names an environment in which so much was done."""
    return json.dumps([start, actions], sort_keys=True)


@dataclass(frozen=True, eq=False)
class _Kept:
    """A place that stays open under the name of what was done in it, since a call of `step`."""

    name: str
    place: Environment
    call: int


class Live:
    """Plays turns in environments of one world; `counts` are what went wrong and what was mended.

    `seconds` is the deadline of one try. `close` leaves no process.
    """

    def __init__(self, make: Callable[[], World], seconds: float = STEP_SECONDS) -> None:
        self.counts: Counter[str] = Counter()
        self._seconds = seconds
        self._kept: list[_Kept] = []
        self._calls = 0
        self._turns: set[asyncio.Task[Any]] = set()
        self._opening: dict[str, list[asyncio.Task[None]]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="mmrl-live", daemon=True
        )
        self._thread.start()
        self._world = make()
        self._beside = asyncio.Semaphore(BESIDE)

    def step(self, turns: Sequence[LiveStep]) -> list[Seen | str]:
        """Carry the turns out side by side, in order; a failure is its reason."""
        return self._run(self._all(turns))

    def expect(self, starts: Sequence[Mapping[str, Any]]) -> None:
        """Begin to open what first turns will be for, at most as many as are kept; returns at once.

        What fails to open is opened again in its turn, which then has all its tries.
        """
        self._loop.call_soon_threadsafe(self._open_ahead, starts[:KEPT])

    def close(self) -> None:
        """Close all environments and their world."""
        if self._thread.is_alive():
            self._run(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _all(self, turns: Sequence[LiveStep]) -> list[Seen | str]:
        own = asyncio.current_task()
        assert own is not None, "it runs in the loop"
        self._calls += 1
        self._turns.add(own)
        try:
            return list(await asyncio.gather(*(self._tried(turn) for turn in turns)))
        finally:
            self._turns.discard(own)

    async def _tried(self, turn: LiveStep) -> Seen | str:
        """Try a live environment, a fresh one, and one in a fresh world, in this order."""
        if opening := self._opening.get(turn.before):
            await opening.pop(0)
        async with self._beside:
            reason = ""
            for attempt in range(TRIES):
                generation = self._world.generation
                try:
                    return await asyncio.wait_for(self._once(turn, attempt > 0), self._seconds)
                except (EnvironmentFailure, TimeoutError) as error:
                    reason = str(error) or f"no answer within {self._seconds:g} s"
                except Exception as error:  # a page may say anything of itself
                    self.counts["unforeseen"] += 1
                    reason = one_line(error)
                self.counts["retries" if attempt < TRIES - 1 else "failures"] += 1
                if attempt == TRIES - 2:
                    await self._world.restart(generation)
            return f"environment failed: {reason}"

    async def _once(self, turn: LiveStep, fresh: bool) -> Seen:
        place, left = None if fresh else self._taken(turn.before), turn.actions[-1:]
        if place is None:
            place, left = await self._begun(turn.start), turn.actions
            self.counts["replayed"] += len(turn.actions) > 1
        try:
            for action in left:
                seen = await place.step(action)
        except BaseException:
            await place.close()
            raise
        if seen.done:
            await place.close()
        else:
            await self._keep(turn.after, place)
        return seen

    async def _begun(self, start: Mapping[str, Any]) -> Environment:
        """A fresh place where an episode starts."""
        place = await self._world.open()
        try:
            await place.reset(start)
        except BaseException:
            await place.close()
            raise
        return place

    def _open_ahead(self, starts: Sequence[Mapping[str, Any]]) -> None:
        for start in starts:
            name = named(start, ())
            task = self._loop.create_task(self._ahead(name, start))
            self._opening.setdefault(name, []).append(task)

    async def _ahead(self, name: str, start: Mapping[str, Any]) -> None:
        """Open a place and keep it; one that fails is nobody's failure yet."""
        try:
            async with self._beside:
                place = await asyncio.wait_for(self._begun(start), self._seconds)
            await self._keep(name, place)
        except Exception:  # whatever it is, the turn meets it again and says so
            self.counts["not opened ahead"] += 1
        finally:
            tasks, own = self._opening.get(name, []), asyncio.current_task()
            tasks[:] = [task for task in tasks if task is not own]
            if not tasks:
                self._opening.pop(name, None)

    def _taken(self, name: str) -> Environment | None:
        for kept in reversed(self._kept):
            if kept.name == name:
                self._kept.remove(kept)
                return kept.place
        return None

    async def _keep(self, name: str, place: Environment) -> None:
        """Keep a place; where there is no room, close what was left long ago, else this one.

        To close the one that waits longest would close the one that is needed next.
        """
        if len(self._kept) < KEPT:
            self._kept.append(_Kept(name, place, self._calls))
        elif self._calls - self._kept[0].call > LEFT_AFTER:
            left = self._kept.pop(0)
            self._kept.append(_Kept(name, place, self._calls))
            await left.place.close()
        else:
            await place.close()

    async def _end(self) -> None:
        """Whoever waits for a turn is told that it was given up, so that no thread waits on."""
        opening = [task for tasks in self._opening.values() for task in tasks]
        working = [*opening, *self._turns]
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        for kept in self._kept:
            await kept.place.close()
        self._kept.clear()
        await self._world.close()


def shown(observation: Observation, seen: Seen) -> Observation:
    """An observation with what the environment shows: its screen, words and verdict."""
    earned = seen.outcome if seen.reward is None else seen.reward
    said = " ".join(text for text in (observation.text, seen.text) if text)
    screen = MediaRef("screenshot", seen.png, {"pixel_ratio": seen.pixel_ratio})
    return replace(
        observation,
        state={**observation.state, "key": seen.key},
        key=seen.key,
        parts=(screen, Text(said)) if said else (screen,),
        text="",
        outcome=seen.outcome,
        reward=earned if seen.done else 0.0,
        done=observation.done or seen.done,
    )


def unmoved(observation: Observation) -> Observation:
    """An observation after a turn without an action, in the state that the environment has."""
    return replace(observation, key=observation.state.get("key", FIRST_STATE))
