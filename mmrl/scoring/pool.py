"""Scoring in worker processes: a deadline per answer, and a verifier that fails is never a 0.

An answer that no verdict could be reached on (crash, deadline, exception, memory, a score outside
the task's declaration) gets reward None and is counted by kind. Verifiers cannot be trusted to
stop (a sympy power holds the interpreter for hours), and signals do not work off the main thread,
so the parent kills the process by the wall clock and replaces it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Protocol

from mmrl.errors import UserError
from mmrl.rewards import custom
from mmrl.scoring.observations import observation_of
from mmrl.scoring.tasks import (
    Together,
    find_defect,
    load_task,
    observation_defect,
    resolve_weights,
    weigh,
)
from mmrl.scoring.worker import Setup
from mmrl.task import Moment, Scope
from mmrl.types import Answer, Observation, Score, SpanScore

STARTUP_SECONDS = 300.0  # a reward of the user's may import what takes a while
MAX_CHUNK = 64
MAX_VERDICT_BYTES = 1 << 24
OUTSIDE = Moment()
"""Of answers that are scored outside of a training."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task by name, its parameters, and weights that override the task's own."""

    task: str
    params: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """One answer to score; `task` is a key of the scorer's specs, `group` tells prompts apart."""

    task: str
    gold: Any
    answer: Answer
    group: int = 0


@dataclass(frozen=True, slots=True)
class StepJob:
    """One turn of an episode for its environment; see `Task.step`."""

    task: str
    gold: Any
    state: Any
    answer: Answer


class Scores(Protocol):
    """What scores answers and carries turns out, in one process or many."""

    def score(self, jobs: Sequence[ScoreJob], moment: Moment = OUTSIDE) -> list[Score]:
        """Score answers in order; a verifier's failure is a Score with reward None."""
        ...

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        """Carry turns out in order; an environment's failure is its reason."""
        ...

    def close(self) -> None:
        """Kill the workers."""
        ...


class Workers(Scores, Protocol):
    """Scores of one process."""

    def calls(self, jobs: Sequence[ScoreJob]) -> list[list[int]]:
        """Which jobs are scored in one call, by their places: each alone unless a task says so."""
        ...


class Scorer:
    """A pool of scoring workers; `score` keeps the order of its jobs.

    `counts` says how many answers were unscorable so far, by kind: timeout, crash, exception,
    memory, defect (a score outside the task's declaration), task (the task said so itself).
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskSpec],
        workers: int,
        timeout_seconds: float,
        memory_bytes: int | None = 4 << 30,
    ) -> None:
        self._tasks = {key: load_task(spec.task, spec.params) for key, spec in tasks.items()}
        self._weights = {
            key: resolve_weights(self._tasks[key], spec.weights) for key, spec in tasks.items()
        }
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        named = {key: (spec.task, dict(spec.params)) for key, spec in tasks.items()}
        self._setup = Setup(named, timeout_seconds, memory_bytes, custom.given())
        self._workers = [_Worker(self._setup) for _ in range(workers)]

    @property
    def counts(self) -> dict[str, int]:
        """Unscorable answers so far, by kind."""
        return dict(self._counts)

    def score(self, jobs: Sequence[ScoreJob], moment: Moment = OUTSIDE) -> list[Score]:
        """Score answers in order; a verifier's failure is a Score with reward None."""
        calls = self.calls(jobs)
        verdicts = self._carry_out([self._asked([jobs[i] for i in c], moment) for c in calls])
        found = {
            i: self._finish(jobs[i], verdict)
            for call, said in zip(calls, verdicts, strict=True)
            for i, verdict in zip(call, _of_each(said, len(call)), strict=True)
        }
        return [found[i] for i in range(len(jobs))]

    def calls(self, jobs: Sequence[ScoreJob]) -> list[list[int]]:
        """Which jobs are scored in one call, by their places: each alone unless a task says so."""
        calls: dict[Hashable, list[int]] = {}
        for i, job in enumerate(jobs):
            scope = self._tasks[job.task].scope
            key: dict[Scope, Hashable] = {"group": (job.task, job.group), "batch": (job.task,)}
            calls.setdefault(key.get(scope, i) if scope else i, []).append(i)
        return list(calls.values())

    def _asked(self, jobs: Sequence[ScoreJob], moment: Moment) -> tuple[int, Any]:
        """How many answers a call is about, and what a worker gets of it."""
        first = jobs[0]
        if self._tasks[first.task].scope is None:
            return 1, (first.task, first.gold, first.answer)
        golds, answers = tuple(j.gold for j in jobs), tuple(j.answer for j in jobs)
        return len(jobs), Together(first.task, golds, answers, moment)

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        """Carry turns out in order; a failure is its reason, and counted as an answer's is."""
        asked = [(1, (job.task, job.gold, job.answer, job.state)) for job in jobs]
        return [
            self._situation(job, verdict)
            for job, verdict in zip(jobs, self._carry_out(asked), strict=True)
        ]

    def _carry_out(self, jobs: Sequence[tuple[int, Any]]) -> list[Mapping[str, Any]]:
        """What a worker says of each job, in order; a job comes with how many answers it has."""
        with self._lock:
            if not self._workers:
                raise ValueError("the scorer is closed")
            batch = _Batch(jobs)
            try:
                while batch.open:
                    self._advance(batch)
            except BaseException:
                # Verdicts still on their way would be taken for those of the next batch.
                self.close()
                raise
        return [batch.verdicts[i] for i in range(len(jobs))]

    def close(self) -> None:
        """Kill the workers and what they started; nothing is left to lose."""
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _advance(self, batch: _Batch) -> None:
        """Hand out jobs, then take in what has come back before the nearest deadline."""
        for index, worker in enumerate(self._workers):
            if worker.idle and batch.waiting and not worker.take(batch, self._chunk(batch)):
                worker.kill()
                self._workers[index] = _Worker(self._setup)
        busy = [w for w in self._workers if not w.idle]
        nearest = min((w.deadline for w in busy), default=time.monotonic() + 1.0)
        wait([w.connection for w in busy], max(0.0, nearest - time.monotonic()))
        for worker in busy:
            failure = self._drain(worker, batch)
            if failure is not None:
                worker.kill()
                batch.give_back(worker, failure)
                self._workers[self._workers.index(worker)] = _Worker(self._setup)

    def _chunk(self, batch: _Batch) -> int:
        """Few enough that the workers finish together, many enough to keep messages cheap."""
        return min(MAX_CHUNK, 1 + len(batch.waiting) // (4 * len(self._workers)))

    def _drain(self, worker: _Worker, batch: _Batch) -> dict[str, Any] | None:
        """Take in a worker's verdicts; a returned failure means that it must be replaced."""
        try:
            while not worker.idle and worker.connection.poll():
                verdict = json.loads(worker.connection.recv_bytes(MAX_VERDICT_BYTES))
                if worker.starting:
                    worker.finish_start(verdict)
                    continue
                if verdict.get("failure") == "memory":
                    return dict(verdict)
                batch.verdicts[worker.next_done(batch)] = verdict
        except (EOFError, OSError):
            return _failure("crash", f"the scoring worker {worker.describe_death()}")
        if worker.idle or time.monotonic() < worker.deadline:
            return None
        if worker.starting:
            raise RuntimeError(f"a scoring worker was not ready after {STARTUP_SECONDS:g} s")
        return _failure("timeout", f"no verdict within {worker.allowed:g} s")

    def _finish(self, job: ScoreJob, verdict: Mapping[str, Any]) -> Score:
        if "failure" in verdict:
            return self._unscorable(verdict["failure"], verdict["reason"])
        score = Score(**{**verdict, "spans": tuple(SpanScore(*s) for s in verdict["spans"])})
        if score.status == "unscorable":
            return self._unscorable("task", score.reason)
        defect = find_defect(self._tasks[job.task], score)
        if defect:
            return self._unscorable("defect", f"task '{job.task}' returned {defect}")
        return weigh(score, self._weights[job.task])

    def _situation(self, job: StepJob, verdict: Mapping[str, Any]) -> Observation | str:
        if "failure" in verdict:
            return self._unscorable(verdict["failure"], verdict["reason"]).reason
        observation = observation_of(verdict)
        defect = observation_defect(observation)
        if defect:
            reason = f"the environment of task '{job.task}' gave {defect}"
            return self._unscorable("defect", reason).reason
        return observation

    def _unscorable(self, kind: str, reason: str) -> Score:
        self._counts[kind] += 1
        return unscorable(f"{kind}: {reason}")


def unscorable(reason: str) -> Score:
    """The score of an answer that no verdict could be reached on."""
    return Score({}, None, "unscorable", reason, None)


class _Batch:
    """The jobs of one call: which wait, and the verdicts so far."""

    def __init__(self, jobs: Sequence[tuple[int, Any]]) -> None:
        self.payloads = [(answers, pickle.dumps(job)) for answers, job in jobs]
        self.waiting = deque(range(len(jobs)))
        self.verdicts: dict[int, Mapping[str, Any]] = {}

    @property
    def open(self) -> bool:
        return len(self.verdicts) < len(self.payloads)

    def give_back(self, worker: _Worker, failure: Mapping[str, Any]) -> None:
        """Blame the answer that a dead worker was at; its other jobs wait again."""
        if worker.starting:
            raise RuntimeError(f"while it started, {failure['reason']}")
        self.verdicts[worker.outstanding.popleft()] = failure
        self.waiting.extendleft(reversed(worker.outstanding))


class _Worker:
    """The parent's end of one scoring process.

    It works on `outstanding` in order and reports each answer before it begins the next, so the
    first of them is the one to blame for a death, and the deadline is that one's.
    """

    def __init__(self, setup: Setup) -> None:
        self.connection, child = Pipe()
        self._timeout_seconds = setup.timeout_seconds
        self.starting, self.allowed = True, setup.timeout_seconds
        self.outstanding: deque[int] = deque()
        self.deadline = time.monotonic() + STARTUP_SECONDS
        with child:
            self._process = _start_process(child)
        self.connection.send(setup)

    @property
    def idle(self) -> bool:
        return not self.starting and not self.outstanding

    def take(self, batch: _Batch, count: int) -> bool:
        """Send it the next jobs; False if it has died meanwhile, and then it took none."""
        chunk = list(islice(batch.waiting, count))
        try:
            self.connection.send([batch.payloads[job] for job in chunk])
        except OSError:
            return False
        for _ in chunk:
            batch.waiting.popleft()
        self.outstanding.extend(chunk)
        self._renew_deadline(batch)
        return True

    def next_done(self, batch: _Batch) -> int:
        """The job it has just reported; the clock of the next one starts."""
        done = self.outstanding.popleft()
        self._renew_deadline(batch)
        return done

    def _renew_deadline(self, batch: _Batch) -> None:
        answers = batch.payloads[self.outstanding[0]][0] if self.outstanding else 1
        self.allowed = answers * self._timeout_seconds
        self.deadline = time.monotonic() + self.allowed

    def finish_start(self, message: Mapping[str, Any]) -> None:
        """The worker is ready, or a task does not load there although it does here."""
        if "failed" in message:
            raise UserError(f"a scoring worker could not load its tasks: {message['failed']}")
        self.starting = False

    def describe_death(self) -> str:
        """Why the connection closed, as the end of a sentence."""
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"

    def kill(self) -> None:
        """End the process and its children, and reap it."""
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _start_process(child: Connection) -> subprocess.Popen[bytes]:
    """Start a worker with this process's import path, in a session (hence group) of its own.

    Not `multiprocessing`: its children import the main script again, and torch with it.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        # One thread a worker; thread pools would also eat the address-space limit.
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "mmrl.scoring.worker", str(child.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=2,
        env=environment,
        pass_fds=[child.fileno()],
        start_new_session=True,
    )


def _of_each(verdict: Mapping[str, Any], answers: int) -> Sequence[Mapping[str, Any]]:
    """A call's verdict as one for each of its answers; a failure is that of all."""
    return list(verdict.get("scores", [verdict] * answers))


def _failure(kind: str, reason: str) -> dict[str, Any]:
    return {"failure": kind, "reason": reason}
