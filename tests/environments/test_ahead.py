"""Environments opened ahead of the first turn, in a world that counts what is open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from mmrl.environments.environment import EnvironmentFailure, Seen
from mmrl.environments.live import KEPT, LEFT_AFTER, Live, LiveStep
from mmrl.task import FIRST_STATE

PATIENCE = 60.0


@dataclass
class Rooms:
    """Rooms in which actions are counted; doors open one after the other, some of them never."""

    failing: int = 0
    door: threading.Event = field(default_factory=threading.Event)
    generation: int = 0
    opened: int = 0
    closed: int = 0
    entering: threading.Event = field(default_factory=threading.Event)

    async def open(self) -> Room:
        self.opened += 1
        if self.opened <= self.failing:
            self.closed += 1
            raise EnvironmentFailure("no room")
        return Room(self)

    async def restart(self, generation: int) -> None:
        self.generation += 1

    async def close(self) -> None:
        assert self.opened == self.closed, "a room is left"


@dataclass
class Room:
    rooms: Rooms
    start: Mapping[str, Any] = field(default_factory=dict)
    done: int = 0

    async def reset(self, start: Mapping[str, Any]) -> Seen:
        self.rooms.entering.set()
        while not self.rooms.door.is_set():
            await asyncio.sleep(0.001)
        self.start = start
        return Seen(b"", FIRST_STATE)

    async def step(self, action: Mapping[str, Any]) -> Seen:
        self.done += 1
        return Seen(b"", f"{self.start['seed']}: {self.done}")

    async def close(self) -> None:
        self.rooms.closed += 1


@contextmanager
def living(rooms: Rooms) -> Iterator[Live]:
    live = Live(lambda: rooms, seconds=PATIENCE)
    try:
        yield live
    finally:
        live.close()
        assert rooms.opened == rooms.closed


def turn(seed: int) -> LiveStep:
    return LiveStep({"seed": seed}, ({"type": "wait"},))


def keys(live: Live, *seeds: int) -> list[str]:
    return [s if isinstance(s, str) else s.key for s in live.step([turn(seed) for seed in seeds])]


def wait(until: Callable[[], bool]) -> None:
    event = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if until():
            return
        event.wait(0.001)
    raise AssertionError("it did not come")


def test_a_first_turn_is_played_where_it_was_opened_ahead() -> None:
    rooms = Rooms()
    rooms.door.set()
    with living(rooms) as live:
        live.expect([{"seed": 1}, {"seed": 1}, {"seed": 2}])
        wait(lambda: rooms.opened == 3)
        assert keys(live, 1, 2, 1, 3) == ["1: 1", "2: 1", "1: 1", "3: 1"]
        assert rooms.opened == 4, "the fourth alone was not expected"


def test_a_turn_waits_for_what_is_being_opened() -> None:
    rooms = Rooms()
    with living(rooms) as live, ThreadPoolExecutor(1) as other:
        live.expect([{"seed": 1}] * 2)
        wait(lambda: rooms.opened == 2)
        played = other.submit(keys, live, 1, 1)
        rooms.door.set()
        assert played.result(PATIENCE) == ["1: 1"] * 2 and rooms.opened == 2


@pytest.mark.parametrize("failing", [2, 3])
def test_what_fails_to_open_ahead_is_no_failure_of_the_turn(failing: int) -> None:
    """It has all its tries: a live or a fresh place, a fresh place, a fresh world."""
    rooms = Rooms(failing=failing)
    rooms.door.set()
    with living(rooms) as live:
        live.expect([{"seed": 1}, {"seed": 2}])
        wait(lambda: live.counts["not opened ahead"] == 2)
        assert keys(live, 1, 2) == ["1: 1", "2: 1"]
        assert (live.counts["retries"], live.counts["failures"]) == (failing - 2, 0)


def test_no_more_is_opened_ahead_than_is_kept() -> None:
    rooms = Rooms()
    rooms.door.set()
    with living(rooms) as live:
        live.expect([{"seed": seed} for seed in range(KEPT + 3)])
        wait(lambda: rooms.opened == KEPT)
        assert keys(live, *range(KEPT)) == [f"{seed}: 1" for seed in range(KEPT)]
        assert (rooms.opened, rooms.closed) == (KEPT, 0)


def test_closing_leaves_nothing_that_was_about_to_open() -> None:
    rooms = Rooms()
    with living(rooms) as live:
        live.expect([{"seed": seed} for seed in range(KEPT)])
        assert rooms.entering.wait(PATIENCE)
    assert 0 < rooms.opened < KEPT, "most of them had to wait for a place"


def walked(seed: int, turns: int) -> LiveStep:
    return LiveStep({"seed": seed}, ({"type": "wait"},) * turns)


def test_with_more_episodes_than_places_only_those_over_are_played_again() -> None:
    """Whoever came last has no place; to give up the longest kept would play all again."""
    rooms, over, turns = Rooms(), 8, 4
    rooms.door.set()
    with living(rooms) as live:
        for number in range(1, turns + 1):
            found = live.step([walked(seed, number) for seed in range(KEPT + over)])
            assert [s.key for s in found if isinstance(s, Seen)] == [
                f"{seed}: {number}" for seed in range(KEPT + over)
            ]
        assert live.counts["replayed"] <= over * (turns - 1)


def test_what_was_left_gives_its_place_to_who_plays() -> None:
    rooms = Rooms()
    rooms.door.set()
    with living(rooms) as live:
        live.step([walked(seed, 1) for seed in range(KEPT)])
        for number in range(1, LEFT_AFTER + 3):
            live.step([walked(-1, number)])
        before = live.counts["replayed"]
        live.step([walked(-1, LEFT_AFTER + 3)])
        assert live.counts["replayed"] == before, "it has a place by now"
        assert rooms.opened - rooms.closed == KEPT


def test_closing_ends_a_turn_that_is_under_way() -> None:
    """Whoever waits for it is told; a thread that waits on would keep the process."""
    rooms = Rooms()
    with ThreadPoolExecutor(1) as other:
        with living(rooms) as live:
            played = other.submit(keys, live, 1)
            assert rooms.entering.wait(PATIENCE)
        with pytest.raises(CancelledError):
            played.result(PATIENCE)
