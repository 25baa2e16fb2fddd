"""Scoring workers with live environments behind them, for tasks whose episodes have a world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmrl.environments.live import Live, LiveStep, shown, unmoved
from mmrl.rewards.custom import load_callable
from mmrl.scoring.pool import OUTSIDE, ScoreJob, Start, StepJob, Workers
from mmrl.task import Moment, Task
from mmrl.types import Observation, Score


class Living:
    """Scores, with the turns of live episodes carried out where they live.

    The workers read a turn first, so that no environment meets the model's text: it gets actions.
    A world starts with its first turn, or as it is expected.
    """

    def __init__(self, workers: Workers, tasks: Mapping[str, Task]) -> None:
        self._workers = workers
        self._tasks = {key: task for key, task in tasks.items() if task.world}
        self._lives: dict[str, Live] = {}

    def score(self, jobs: Sequence[ScoreJob], moment: Moment = OUTSIDE) -> list[Score]:
        """Score answers in order."""
        return self._workers.score(jobs, moment)

    def calls(self, jobs: Sequence[ScoreJob]) -> list[list[int]]:
        """The places of jobs that one call scores together."""
        return self._workers.calls(jobs)

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        """Carry turns out in order; an environment that fails is its reason."""
        found = self._workers.step(jobs)
        for key in self._tasks:
            acted = []
            for i, (job, seen) in enumerate(zip(jobs, found, strict=True)):
                if job.task != key or isinstance(seen, str):
                    continue
                if _has_acted(job, seen):
                    acted.append(i)
                else:
                    found[i] = unmoved(seen)
            turns = self._live(key, [found[i] for i in acted])
            for place, seen in zip(acted, turns, strict=True):
                found[place] = seen
        return found

    def expect(self, starts: Sequence[Start]) -> None:
        """Begin to open the environments of episodes that start soon; returns at once."""
        for key in self._tasks:
            if soon := [start.state["start"] for start in starts if start.task == key]:
                self._life(key).expect(soon)

    def _live(self, key: str, turns: Sequence[Observation | str]) -> list[Observation | str]:
        """What the turns, all of them observations, come to in their world."""
        read = [turn for turn in turns if isinstance(turn, Observation)]
        if not read:
            return []
        steps = [LiveStep(o.state["start"], tuple(o.state["actions"])) for o in read]
        seen = self._life(key).step(steps)
        return [s if isinstance(s, str) else shown(o, s) for o, s in zip(read, seen, strict=True)]

    def _life(self, key: str) -> Live:
        if key not in self._lives:
            task = self._tasks[key]
            self._lives[key] = Live(lambda: load_callable(task.world, "world")(task))
        return self._lives[key]

    def close(self) -> None:
        """End the worlds, then the workers."""
        for live in self._lives.values():
            live.close()
        self._lives = {}
        self._workers.close()


def _has_acted(job: StepJob, seen: Observation) -> bool:
    return len(seen.state["actions"]) > len(job.state["actions"])
