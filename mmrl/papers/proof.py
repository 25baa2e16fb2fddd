"""Whether systems run: the small form of each, end to end, one after the other in this process."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mmrl.config import RunConfig
from mmrl.doctor.preflight import check_run
from mmrl.errors import UserError
from mmrl.evaluate.benchmark import run_benchmark
from mmrl.papers.paper_files import PaperFile
from mmrl.papers.small_form import evaluation_of
from mmrl.runlog.journal import Journal
from mmrl.train.phases import phases_of
from mmrl.train.run import train
from mmrl.validation import validate


@dataclass(frozen=True)
class Proof:
    """What became of a small form: its phases and steps, and what went wrong ("" for nothing).

    `idle` are the phases in which no gradient moved the policy, nor a critic that learns alone: of
    estimates, or where a model this small earns the same with every answer.
    """

    id: str
    status: str
    phases: int
    steps: int
    seconds: float
    problem: str
    idle: tuple[int, ...] = ()

    def line(self) -> str:
        """It in a line."""
        still = f", no gradient in phase {', '.join(map(str, self.idle))}" if self.idle else ""
        said = self.problem or f"{self.phases} phases, {self.steps} steps{still}, evaluated"
        said = "nothing to run" if self.status == "nothing" and not self.problem else said
        return f"{self.id:22} {self.status:8} {self.seconds:6.1f} s  {said}"


@dataclass(frozen=True)
class Course:
    """How a run went."""

    phases: int
    steps: int
    problem: str
    idle: tuple[int, ...] = ()


def prove(papers: Iterable[PaperFile], tell: Callable[[Proof], None]) -> list[Proof]:
    """Run the small form of each, and tell of each at once."""
    proofs = []
    for paper in papers:
        with TemporaryDirectory(prefix="mmrl-papers-") as folder:
            proofs.append(_proof(paper, Path(folder) / "run"))
        tell(proofs[-1])
    return proofs


def _proof(paper: PaperFile, folder: Path) -> Proof:
    started = time.monotonic()
    course = Course(0, 0, "")
    said = io.StringIO()
    if paper.runs:
        try:
            values = {**paper.small(), "run": str(folder)}
            config = validate(RunConfig, values, f"{paper.id} (small)")
            with contextlib.redirect_stderr(said):
                check_run(config)
                train(config)
            course = _course(config)
            if paper.about.evaluation and not course.problem:
                run_benchmark(evaluation_of(config, paper.about.evaluation))
        except UserError as error:
            course = Course(0, 0, str(error))
        except Exception as error:  # a bug of ours, which is what is looked for
            course = Course(0, 0, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return Proof(
        paper.id,
        paper.about.status,
        course.phases,
        course.steps,
        time.monotonic() - started,
        course.problem,
        course.idle,
    )


def _course(config: RunConfig) -> Course:
    """Phases and steps of a run that has ended, and what it left out."""
    rows = list(Journal(config.run / "metrics.jsonl").rows())
    planned = range(1, len(phases_of(config)) + 1)
    reached = {int(row.get("phase", 1)) for row in rows}
    moved = {int(row.get("phase", 1)) for row in rows if _learnt(row)}
    result = json.loads((config.run / "result.json").read_text(encoding="utf-8"))
    problem = "" if result["after"] is not None else "it was not evaluated"
    if missed := [phase for phase in planned if phase not in reached]:
        problem = f"phases {missed} made no step"
    idle = tuple(phase for phase in planned if phase not in moved)
    return Course(len(planned), len(rows), problem, idle)


def _learnt(row: Mapping[str, float]) -> bool:
    """Whether a step had a gradient, or was one in which a critic learns alone."""
    alone = "train/value_loss" in row and row.get("train/updates") == 0
    return alone or row.get("train/grad_norm", 0.0) > 0
