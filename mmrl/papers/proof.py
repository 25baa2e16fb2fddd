"""Whether systems run: the small form of each, end to end, one after the other in this process."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterable
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
    """What became of a small form: its phases and steps, and what went wrong ("" for nothing)."""

    id: str
    status: str
    phases: int
    steps: int
    seconds: float
    problem: str

    def line(self) -> str:
        """It in a line."""
        said = self.problem or f"{self.phases} phases, {self.steps} steps, evaluated"
        said = "nothing to run" if self.status == "nothing" and not self.problem else said
        return f"{self.id:22} {self.status:8} {self.seconds:6.1f} s  {said}"


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
    phases = steps = 0
    problem = ""
    said = io.StringIO()
    if paper.runs:
        try:
            values = {**paper.small(), "run": str(folder)}
            config = validate(RunConfig, values, f"{paper.id} (small)")
            with contextlib.redirect_stderr(said):
                check_run(config)
                train(config)
            phases, steps, problem = _course(config)
            if paper.about.evaluation and not problem:
                run_benchmark(evaluation_of(config, paper.about.evaluation))
        except UserError as error:
            problem = str(error)
        except Exception as error:  # a bug of ours, which is what is looked for
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return Proof(paper.id, paper.about.status, phases, steps, time.monotonic() - started, problem)


def _course(config: RunConfig) -> tuple[int, int, str]:
    """Phases and steps of a run that has ended, and what it left out."""
    rows = list(Journal(config.run / "metrics.jsonl").rows())
    planned = len(phases_of(config))
    reached = {int(row.get("phase", 1)) for row in rows}
    result = json.loads((config.run / "result.json").read_text(encoding="utf-8"))
    missed = sorted(set(range(1, planned + 1)) - reached)
    if missed:
        return planned, len(rows), f"phases {missed} made no step"
    if result["after"] is None:
        return planned, len(rows), "it was not evaluated"
    return planned, len(rows), ""
