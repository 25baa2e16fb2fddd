"""What an engine in the background loads is what was handed over, and what jobs were promised."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from mmrl.engines import background
from mmrl.engines.background import BackgroundEngine
from mmrl.engines.engine import Sampling
from mmrl.policy.buckets import named
from mmrl.policy.policy import Policy
from mmrl.policy.weights import Weights, weights_of
from mmrl.types import Prompt, Response

WAIT = 60.0  # seconds; only a test that fails takes them


class Loader:
    """An engine of one number, which loads when it is let: it says what it has."""

    takes_adapter = False

    def __init__(self) -> None:
        self.version: int | None = 0
        self.number = 0.0
        self.loaded: list[float] = []
        self.loading, self.may_load = threading.Event(), threading.Event()
        self.fails = False

    def sync(self, weights: Any) -> None:
        self.version = None
        self.loading.set()
        assert self.may_load.wait(WAIT)
        if self.fails:
            raise RuntimeError("the servers are gone")
        (self.number,) = (float(value) for _, value in named(weights.whole()))
        self.loaded.append(self.number)
        self.version = weights.version

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        return [[self.number]]  # type: ignore[list-item]

    def close(self) -> None:
        """Nothing is held."""


class Side:
    """A policy of one weight that is trained beside an engine that loads it."""

    def __init__(self) -> None:
        self.model = torch.nn.Linear(1, 1, bias=False)
        self.model.device = torch.device("cpu")
        self.policy = Policy(self.model, None, None, None, None)  # type: ignore[arg-type]
        self.loader = Loader()
        self.engine = BackgroundEngine(self.loader)
        self.update(0)

    def update(self, step: int) -> None:
        """What a step does: the weights change in place, and the engine is told."""
        with torch.no_grad():
            self.model.weight.fill_(float(step))
        if step:
            self.engine.sync(weights_of(self.policy, step))

    def answer(self) -> float:
        """What the engine samples at this moment, in its thread."""
        return self.loader.number


@pytest.fixture
def side() -> Any:
    made = Side()
    yield made
    made.loader.may_load.set()
    made.engine.close()


@pytest.mark.parametrize("staleness", [2, 3, 4])
def test_every_job_has_the_weights_of_its_hand_over(side: Side, staleness: int) -> None:
    """All of them are handed over while the engine still loads the first."""
    jobs = [side.engine.submit(side.answer, 0)]
    for step in range(1, staleness + 1):
        side.update(step)
        side.engine.hand_over(wait=False)
        assert side.loader.loading.wait(WAIT)  # it is in the middle of a load
        jobs.append(side.engine.submit(side.answer, step))
    side.update(99)  # the trainer goes on; nothing is handed over
    side.loader.may_load.set()
    assert [job.result(WAIT) for job in jobs] == list(range(staleness + 1))
    assert side.loader.loaded == list(range(1, staleness + 1))


def test_hand_overs_without_jobs_are_loaded_in_turn_all_the_same(side: Side) -> None:
    for step in (1, 2, 3):
        side.update(step)
        side.engine.hand_over(wait=False)
    side.loader.may_load.set()
    assert side.engine.submit(side.answer, 3).result(WAIT) == 3
    assert side.loader.loaded == [1, 2, 3]


def test_nothing_is_handed_over_twice(side: Side) -> None:
    side.loader.may_load.set()
    side.engine.hand_over()
    assert not side.engine.outdated and side.loader.loaded == []
    side.update(1)
    assert side.engine.outdated
    for _ in range(3):
        side.engine.hand_over(wait=False)
    assert side.engine.submit(side.answer, 1).result(WAIT) == 1
    assert side.loader.loaded == [1]


def test_an_evaluation_in_between_has_the_newest_weights_and_moves_nothing(side: Side) -> None:
    """It waits for its turn; what was asked before it keeps what it was promised."""
    side.update(1)
    side.engine.hand_over(wait=False)
    before = side.engine.submit(side.answer, 1)
    side.update(2)
    threading.Timer(0.1, side.loader.may_load.set).start()
    assert side.engine.generate([], [], Sampling(1), 0) == [[2]]
    assert before.result(WAIT) == 1
    assert side.engine.submit(side.answer, 2).result(WAIT) == 2
    side.update(3)
    side.engine.hand_over(wait=False)
    assert side.engine.submit(side.answer, 3).result(WAIT) == 3
    assert side.loader.loaded == [1, 2, 3]


def test_a_load_that_fails_fails_what_was_promised_its_weights_and_nothing_else(
    side: Side,
) -> None:
    before = side.engine.submit(side.answer, 0)
    side.loader.may_load.set()
    side.loader.fails = True
    side.update(1)
    side.engine.hand_over(wait=False)
    job = side.engine.submit(side.answer, 1)
    with pytest.raises(RuntimeError, match="servers are gone"):
        job.result(WAIT)
    with pytest.raises(RuntimeError, match="servers are gone"):
        side.engine.generate([], [], Sampling(1), 0)
    assert before.result(WAIT) == 0
    side.loader.fails = False
    side.update(2)
    side.engine.hand_over(wait=False)
    assert side.engine.submit(side.answer, 2).result(WAIT) == 2


def test_a_copy_that_fails_leaves_the_engine_outdated(side: Side) -> None:
    """It does not go on with old weights as if they were new ones."""

    def full() -> Any:
        raise MemoryError

    side.engine.sync(Weights(1, full, full, torch.device("cpu")))
    with pytest.raises(MemoryError):
        side.engine.hand_over(wait=False)
    assert side.engine.outdated
    with pytest.raises(AssertionError, match="weights 1 are wanted, 0 are there"):
        side.engine.submit(side.answer, 1)


def test_an_engine_with_other_weights_than_promised_is_noticed(side: Side) -> None:
    side.loader.may_load.set()
    side.loader.version = 7
    with pytest.raises(AssertionError, match="has weights 7, promised were 0"):
        side.engine.submit(side.answer, 0).result(WAIT)


def test_neither_side_touches_weights_before_the_other_is_done_with_them(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU threads may have streams of their own: both sides wait for theirs."""
    order: list[tuple[str, bool]] = []

    def note(what: str) -> None:
        order.append((what, threading.current_thread() is threading.main_thread()))

    sync = side.loader.sync
    monkeypatch.setattr(background, "settle", lambda: note("settled"))
    monkeypatch.setattr(side.loader, "sync", lambda weights: (sync(weights), note("loaded")))
    side.loader.may_load.set()
    side.update(1)
    side.engine.hand_over()
    assert order == [("settled", True), ("loaded", False), ("settled", False)]
