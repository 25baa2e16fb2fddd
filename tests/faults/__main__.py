"""All faults, one after the other, and the table of what came of them.

    python -m tests.faults                   # some twenty minutes on two cores
    python -m tests.faults --only disk       # those whose name holds a word; the table stays
    python -m tests.faults --kills 20        # more kills of each kind of run

Exit code 1 if an outcome is not the one that is promised. docs/reliability.md and
tests/faults/outcomes.json are written where all were tried.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tests.faults import sharded
from tests.faults.kills import (
    Bench,
    Outcome,
    boundaries,
    every_boundary_of_a_step,
    killed,
    killed_again_and_again,
)
from tests.faults.mishaps import MISHAPS
from tests.faults.subjects import SUBJECTS, make_workspace
from tests.faults.table import OUTCOMES, write_page
from tests.faults.trapped import Zygote

EXACT = "exact resume"


def tried(bench: Bench, kills: int, only: str) -> Iterator[Outcome]:
    """Carry the faults out, one after the other."""
    for subject in SUBJECTS:
        if only in f"kill -9: {subject.name}":
            moments = boundaries(bench, subject, kills)
            wrong = [found for m in moments if (found := killed(bench, subject, *m))]
            yield Outcome(
                "kill -9", subject.name, len(moments), not wrong, (wrong and wrong[0]) or EXACT
            )
    if only in "kill -9 at every stage boundary":
        moments = every_boundary_of_a_step(3)
        wrong = [found for m in moments if (found := killed(bench, SUBJECTS[0], *m))]
        name = "kill -9 at every stage boundary of a step"
        yield Outcome(name, "grpo", len(moments), not wrong, (wrong and wrong[0]) or EXACT)
    if only in "kill -9 20 times in one run":
        done, bad = killed_again_and_again(bench, SUBJECTS[0], 20)
        yield Outcome(f"kill -9 {done} times in one run", "grpo", done, not bad, bad or EXACT)
    for name, (mishap, promised) in MISHAPS.items():
        if only in name:
            bad = mishap(bench)
            yield Outcome(name, "grpo", 1, not bad, bad or promised)
    if only in "kill -9: zero2" and importlib.util.find_spec("deepspeed"):
        yield from _sharded(bench)


def _sharded(bench: Bench) -> Iterator[Outcome]:
    unharmed = sharded.whole(bench)
    name = "kill -9 of one process of two"
    for rank, moment in ((0, 30), (1, 47)):
        bad = sharded.one_dies(bench, unharmed, rank, moment)
        yield Outcome(name, "zero2", 1, not bad, bad or EXACT)
    for low, high in ((1.0, 6.0), (6.0, 20.0)):
        bad = sharded.all_die(bench, unharmed, float(bench.rng.uniform(low, high)))
        name = f"kill -9 of all, {low:g} to {high:g} s after their start"
        yield Outcome(name, "zero2", 1, not bad, bad or "starts again or resumes, exact")


def main() -> int:
    """Try all, print each outcome, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="faults whose name holds this")
    parser.add_argument("--kills", type=int, default=8, help="of each kind of run")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    rng, outcomes = np.random.default_rng(arguments.seed), list[Outcome]()
    with tempfile.TemporaryDirectory() as folder:
        zygote = Zygote()
        bench = Bench(make_workspace(Path(folder)), zygote, rng)
        for outcome in tried(bench, arguments.kills, arguments.only):
            outcomes.append(outcome)
            mark = "ok   " if outcome.right else "WRONG"
            print(f"{mark} {outcome.fault} ({outcome.subject}): {outcome.outcome}", flush=True)
            bench.clear()
        zygote.close()
    if not arguments.only:
        about = {"seed": arguments.seed, "python": platform.python_version()}
        rows = [asdict(outcome) for outcome in outcomes]
        OUTCOMES.write_text(json.dumps({**about, "outcomes": rows}, indent=1) + "\n")
        write_page(outcomes)
    return int(not all(outcome.right for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
