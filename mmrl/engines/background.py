"""An engine at work in a thread of its own, beside the thread that trains."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

from mmrl.engines.engine import Sampling, WeightHolder
from mmrl.policy.attention import stand_apart
from mmrl.policy.kept import Kept
from mmrl.policy.policy import Policy
from mmrl.policy.weights import Weights
from mmrl.types import Prompt, Response

T = TypeVar("T")

PATIENCE_SECONDS = 3.0  # for a job that does not come back from a call into C


class Stopped(BaseException):
    """Raised inside a job that is no longer wanted."""


class Worker:
    """One thread that does jobs in the order they come in."""

    def __init__(self) -> None:
        self._idle = 0.0
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._busy = self._closed = False
        # The current device is a thread's own.
        self._device = torch.cuda.current_device() if torch.cuda.is_available() else None
        # A daemon: a job deep in C that outlasts `close` does not keep the process.
        self._thread = threading.Thread(target=self._work, name="mmrl-rollout", daemon=True)
        self._thread.start()

    def take_idle(self) -> float:
        """Return its seconds without a job since this was last asked."""
        idle, self._idle = self._idle, 0.0
        return idle

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Do a job after those before it; its result or exception is the future's."""
        future: Future[T] = Future()
        self._jobs.put((future, job))
        return future

    def close(self) -> None:
        """Stop the job under way, forget the others, and end the thread."""
        self._closed = True
        self._jobs.put(None)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._thread.is_alive() and time.monotonic() < deadline:
            if self._busy and self._thread.ident is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread.ident), ctypes.py_object(Stopped)
                )
            self._thread.join(0.1)

    def _work(self) -> None:
        stand_apart()
        if self._device is not None:
            torch.cuda.set_device(self._device)
        ended = time.monotonic()
        with contextlib.suppress(Stopped):
            while (taken := self._jobs.get()) is not None:
                future, job = taken
                self._idle += time.monotonic() - ended
                self._do(future, job)
                ended = time.monotonic()

    def _do(self, future: Future[Any], job: Callable[[], Any]) -> None:
        if self._closed:
            future.cancel()
            return
        try:
            self._busy = True
            future.set_result(job())
        except BaseException as error:  # it is the waiting thread's to handle
            future.set_exception(error)
        finally:
            self._busy = False


class BackgroundEngine:
    """Lets an engine with weights of its own work in a `Worker`, one job after the other.

    As an engine it answers in its turn, with the newest weights; the caller waits.
    """

    def __init__(self, engine: WeightHolder) -> None:
        self.engine, self.worker = engine, Worker()
        self._newest: Weights | None = None  # as long as the engine was not given them
        self._version = engine.version
        self._loaded: Future[None] = self.worker.submit(lambda: None)

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Sample with the policy's present weights, after what was asked before."""
        self.hand_over()
        return self.submit(lambda: self.engine.generate(prompts, counts, sampling, seed)).result()

    def sync(self, weights: Weights) -> None:
        """Take note that the weights have changed; they are handed over when next needed."""
        self._newest = weights

    def close(self) -> None:
        """Stop the thread, then free what the engine holds."""
        self.worker.close()
        self.engine.close()
        self.worker.close()  # a job that waited for servers comes back once they are gone

    @property
    def outdated(self) -> bool:
        """True if weights are to be handed over."""
        return self._newest is not None

    def hand_over(self, *, wait: bool = True) -> None:
        """Give the engine the newest weights for all jobs to come, unless it has them.

        The policy must stand still meanwhile. Without `wait` a copy of this moment stays in the
        host's memory until the engine is done with the jobs before and has loaded it. Every one is
        loaded, in its turn, so as many wait as were handed over since.
        """
        if self._newest is None:
            return
        newest, only = self._newest, self.engine.takes_adapter
        given = newest if wait else newest.copied(adapter_only=only)
        settle()  # the worker reads the policy on a stream of its own
        self._loaded = self.worker.submit(lambda: self._load(given))
        self._version, self._newest = newest.version, None
        if wait:
            self._loaded.result()

    def submit(self, job: Callable[[], T], version: int | None = None) -> Future[T]:
        """Do a job with the weights last handed over, which must be those of `version` if given."""
        loaded, promised = self._loaded, self._version
        assert version in (None, promised), f"weights {version} are wanted, {promised} are there"

        def with_weights() -> T:
            loaded.result()  # raises what went wrong; it is done, since jobs keep their order
            held = self.engine.version
            assert held == promised, f"the engine has weights {held}, promised were {promised}"
            return job()

        return self.worker.submit(with_weights)

    def _load(self, weights: Weights) -> None:
        self.engine.sync(weights)
        settle()  # the policy may move on


def settle() -> None:
    """Wait for a GPU to do what this thread has asked of it.

    vLLM gives every thread a stream of its own, and one stream does not wait for another.
    """
    if torch.cuda.is_available():
        torch.cuda.current_stream().synchronize()


def view_of(policy: Policy) -> Policy:
    """The same policy for another thread: tokenizers must not be used by two at once."""
    return dataclasses.replace(policy, processor=copy.deepcopy(policy.processor), kept=Kept())
