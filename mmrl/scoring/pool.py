"""Scoring in worker processes: a deadline per answer, and a verifier that fails is never a 0.

An answer that no verdict could be reached on (crash, deadline, exception, memory, a score outside
the task's declaration) gets reward None and is counted by kind. Verifiers cannot be trusted to
stop (a sympy power holds the interpreter for hours), and signals do not work off the main thread,
so the parent kills the process by the wall clock and replaces it.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, Protocol, runtime_checkable

from mmrl.errors import TrainingError, one_line
from mmrl.frame import Mark
from mmrl.modalities.child_environment import hidden_names
from mmrl.rewards import custom
from mmrl.scoring.child import Child
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

MAX_CHUNK = 64
MAX_STARTS = 2  # in a row without one that gets ready: a busy machine is no reason to give up
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


@dataclass(frozen=True, slots=True)
class Start:
    """Where an episode of a task begins, before its first turn."""

    task: str
    state: Any


@runtime_checkable
class Expects(Protocol):
    """Steps that make environments ready before their first turn is known."""

    def expect(self, starts: Sequence[Start]) -> None:
        """Begin to open the environments of episodes that start soon; returns at once.

        What comes of a turn does not depend on it.
        """
        ...


class Scores(Protocol):
    """What scores answers, in one process or many."""

    def score(self, jobs: Sequence[ScoreJob], moment: Moment = OUTSIDE) -> list[Score]:
        """Score answers in order; a verifier's failure is a Score with reward None."""
        ...

    def close(self) -> None:
        """Kill the workers."""
        ...


class Steps(Protocol):
    """What carries out the turns of episodes."""

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        """Carry turns out in order; an environment's failure is its reason."""
        ...


class Workers(Scores, Steps, Protocol):
    """Scores and turns of one process."""

    def calls(self, jobs: Sequence[ScoreJob]) -> list[list[int]]:
        """Which jobs are scored in one call, by their places: each alone unless a task says so."""
        ...


class Scorer:
    """A pool of scoring workers; `score` keeps the order of its jobs.

    `counts` says how many answers were unscorable so far, by kind: timeout, crash, exception,
    memory, defect (a score outside the task's declaration), task (the task said so itself).
    Workers see none of this process's keys and tokens but those that `secrets` names.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskSpec],
        workers: int,
        timeout_seconds: float,
        memory_bytes: int | None = 4 << 30,
        secrets: Collection[str] = (),
    ) -> None:
        self._tasks = {key: load_task(spec.task, spec.params) for key, spec in tasks.items()}
        self._weights = {
            key: resolve_weights(self._tasks[key], spec.weights) for key, spec in tasks.items()
        }
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        named = {key: (spec.task, dict(spec.params)) for key, spec in tasks.items()}
        self._setup = Setup(
            named, timeout_seconds, memory_bytes, custom.given(), frozenset(secrets)
        )
        self._failed_starts = 0
        self._workers = [Child(self._setup) for _ in range(workers)]

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
            batch = _Batch(jobs)
            try:
                while batch.open:
                    if not self._workers:  # by now, perhaps: another thread may close it
                        raise ValueError("the scorer is closed")
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
            if worker.idle and batch.waiting and not self._hand_out(worker, batch):
                worker.kill()
                self._workers[index] = Child(self._setup)
        busy = [w for w in self._workers if not w.idle]
        nearest = min((w.deadline for w in busy), default=time.monotonic() + 1.0)
        wait([w.channel for w in busy], max(0.0, nearest - time.monotonic()))
        for worker in busy:
            failure = self._drain(worker, batch)
            if failure is not None:
                self._replace(worker, batch, failure)
            elif not worker.starting:
                self._failed_starts = 0

    def _hand_out(self, worker: Child, batch: _Batch) -> bool:
        """Give a worker its next jobs; False if it has died meanwhile, and then it took none.

        They are few enough that the workers finish together, many enough to keep messages cheap.
        """
        count = min(MAX_CHUNK, 1 + len(batch.waiting) // (4 * len(self._workers)))
        chunk = list(islice(batch.waiting, count))
        if not worker.take({i: batch.payloads[i] for i in chunk}):
            return False
        for _ in chunk:
            batch.waiting.popleft()
        return True

    def _drain(self, worker: Child, batch: _Batch) -> dict[str, Any] | None:
        """Take in a worker's verdicts; a returned failure means that it must be replaced."""
        try:
            for done, verdict in worker.verdicts():
                if verdict.get("failure") == "memory":
                    return dict(verdict)
                batch.verdicts[done] = verdict
                worker.reported()
        except (EOFError, OSError, ValueError) as error:
            why = worker.describe_death() if isinstance(error, EOFError) else one_line(error)
            return _failure("crash", f"the scoring worker {why}")
        if worker.idle or time.monotonic() < worker.deadline:
            return None
        what = "not ready" if worker.starting else "no verdict"
        return _failure("timeout", f"{what} within {worker.allowed:g} s")

    def _replace(self, worker: Child, batch: _Batch, failure: Mapping[str, Any]) -> None:
        """Put a new worker in the place of one that failed, and say whose fault it was."""
        worker.kill()
        if worker.starting:
            self._failed_starts += 1
            if self._failed_starts >= MAX_STARTS:
                raise TrainingError(
                    f"scoring workers do not start ({failure['reason']}): see what the task's "
                    "reward imports, or leave them more of the machine"
                )
        else:
            batch.give_back(worker, failure)
        self._workers[self._workers.index(worker)] = Child(self._setup)

    def _finish(self, job: ScoreJob, verdict: Mapping[str, Any]) -> Score:
        if "failure" in verdict:
            return self._unscorable(verdict["failure"], self._explained(verdict["reason"]))
        spans = tuple(SpanScore(*span) for span in verdict["spans"])
        marks = tuple(
            Mark(kind, whose, tuple(numbers), *rest)
            for kind, whose, numbers, *rest in verdict["marks"]
        )
        score = Score(**{**verdict, "spans": spans, "marks": marks})
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

    def _explained(self, reason: str) -> str:
        """A failure's reason, with a hint where a reward may have missed a secret."""
        missed = [name for name in hidden_names(self._setup.secrets) if name in reason]
        hint = (
            "; rewards see it if rollout.scoring_secrets (or --secrets) names it" if missed else ""
        )
        return reason + hint

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

    def give_back(self, worker: Child, failure: Mapping[str, Any]) -> None:
        """Blame the answer that a dead worker was at; its other jobs wait again."""
        blamed, *others = (place for place, _, _ in worker.outstanding)
        self.verdicts[blamed] = failure
        self.waiting.extendleft(reversed(others))


def _of_each(verdict: Mapping[str, Any], answers: int) -> Sequence[Mapping[str, Any]]:
    """A call's verdict as one for each of its answers; a failure is that of all."""
    return list(verdict.get("scores", [verdict] * answers))


def _failure(kind: str, reason: str) -> dict[str, Any]:
    return {"failure": kind, "reason": reason}
