"""How many answers a second the scoring workers grade, by task.

    OMP_NUM_THREADS=1 python tools/bench_scoring.py --workers 2 --answers 8000 counting mmmu

The answers are the fixture's golds, its prompts and broken golds in turn. The rate by the clock is
what a run sees; the one by CPU time is what it would see if nothing else ran on the same cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrl.scoring.pool import ScoreJob, Scorer, TaskSpec
from mmrl.scoring.tasks import example_answer, fixture_path, load_task
from mmrl.types import Text

LIGHT = ("counting", "medical_vqa", "mmmu", "chart_qa", "referring_box", "gui_grounding")
"""Tasks that read a letter, a number, a box or a point, and compare it."""


@dataclass(frozen=True)
class Rate:
    """Answers graded, and the seconds they took: by the clock, and of CPU in all processes."""

    answers: int
    seconds: float
    cpu_seconds: float

    def by_cpu(self, cores: int) -> float:
        """Answers a second on cores that do nothing else."""
        return self.answers * cores / self.cpu_seconds


def jobs_of(task: str, count: int) -> list[ScoreJob]:
    """Answers to the task's fixture: a third right, a third the prompt, a third broken."""
    loaded = load_task(task)
    jobs = []
    for record in loaded.records(fixture_path(task)):
        sample = loaded.sample(record)
        blank = example_answer(sample)
        target = str(loaded.target(sample, blank))
        prompt = "".join(part.text for part in sample.parts if isinstance(part, Text))
        for text in (target, prompt, target[: len(target) // 2]):
            jobs.append(ScoreJob(task, sample.gold, dataclasses.replace(blank, text=text)))
    return [jobs[i % len(jobs)] for i in range(count)]


def measure(tasks: Sequence[str], count: int, workers: int) -> list[Rate]:
    """Grade so many answers of each task; the workers have started before the clock does."""
    specs = {task: TaskSpec(task) for task in tasks}
    found = []
    with Scorer(specs, workers=workers, timeout_seconds=10.0) as scorer:
        for task in tasks:
            jobs = jobs_of(task, count)
            scorer.score(jobs[: 64 * workers])
            started, spent = time.monotonic(), cpu_seconds()
            scores = scorer.score(jobs)
            rate = Rate(count, time.monotonic() - started, cpu_seconds() - spent)
            assert all(score.reward is not None for score in scores)
            found.append(rate)
    return found


def cpu_seconds() -> float:
    """CPU time of this process and of its children that still run."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == os.getpid():
            ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=list(LIGHT), metavar="task")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--answers", type=int, default=8_000, help="of each task")
    args = parser.parse_args()
    print(f"{'task':24} {'answers/s':>10} {'by CPU time':>12}")
    rates = measure(args.tasks, args.answers, args.workers)
    for task, rate in zip(args.tasks, rates, strict=True):
        clock = rate.answers / rate.seconds
        print(f"{task:24} {clock:10.0f} {rate.by_cpu(args.workers):12.0f}")


if __name__ == "__main__":
    main()
