"""Fit the terms of a training step's time to bench_step.py's measurements, and check the fit.

    python tools/bench_step.py --peer none --pixels 224 --json a.json     (several sizes)
    python tools/cost_model.py a.json b.json c.json ... [--out model.json]

A step's seconds are those of its rollout and of its update, each a sum of terms:

    rollout = overhead + patches x tower + prompt tokens x prefill + new tokens x decode
              + decoding steps x call
    update  = overhead + trained tokens x train

Terms are seconds a unit on the machine that was measured, and at least zero (non-negative least
squares). The error is that of predicting every file's steps from the other files alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

STAGES: Mapping[str, tuple[str, ...]] = {
    "rollout": ("overhead", "patches", "prompt_tokens", "new_tokens", "decode_steps"),
    "update": ("overhead", "patches", "trained_tokens"),
}


@dataclass(frozen=True)
class Measurement:
    """The median seconds of a size's steps by stage, and how much work a step had."""

    name: str
    seconds: Mapping[str, float]
    work: Mapping[str, float]


def read(file: Path) -> Measurement:
    """One of bench_step.py's files."""
    report = json.loads(file.read_text(encoding="utf-8"))
    workload, samples = report["workload"], report["samples"]["mmrl"]
    prompts = float(np.mean([sum(s["prompt_tokens"]) for s in samples]))
    answers = workload["prompts"] * workload["group"]
    new = answers * workload["new_tokens"]
    # The tower sees a picture to roll out and again to learn from it.
    patches = float(np.mean([s["work"]["tower_patches"] for s in samples])) / 2
    work = {
        "overhead": 1.0,
        "patches": patches,
        "prompt_tokens": prompts,
        "new_tokens": float(new),
        "decode_steps": float(workload["new_tokens"]),
        "trained_tokens": prompts + new,
    }
    return Measurement(
        file.stem, {s: float(np.median([x[s] for x in samples])) for s in STAGES}, work
    )


def fit(measured: Sequence[Measurement], stage: str) -> dict[str, float]:
    """Seconds a unit of each of the stage's terms; small steps count as much as large ones."""
    rows = np.array([[m.work[term] for term in STAGES[stage]] for m in measured])
    seconds = np.array([m.seconds[stage] for m in measured])
    scale = rows.max(axis=0)
    found, _ = nnls(rows / scale / seconds[:, None], np.ones(len(seconds)))
    return dict(zip(STAGES[stage], (found / scale).tolist(), strict=True))


def predict(terms: Mapping[str, float], work: Mapping[str, float]) -> float:
    return sum(seconds * work[term] for term, seconds in terms.items())


def left_out(measured: Sequence[Measurement], stage: str) -> dict[str, float]:
    """Relative error of each file's prediction from the others."""
    errors = {}
    for m in measured:
        terms = fit([other for other in measured if other is not m], stage)
        errors[m.name] = predict(terms, m.work) / m.seconds[stage] - 1
    return errors


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="write terms and errors as JSON")
    args = parser.parse_args()
    needed = max(map(len, STAGES.values())) + 1
    if len(args.files) < needed:
        print(f"{needed} sizes at least, or the terms are not determined", file=sys.stderr)
        return 2
    measured = [read(file) for file in args.files]
    found: dict[str, Any] = {}
    for stage in STAGES:
        terms, errors = fit(measured, stage), left_out(measured, stage)
        found[stage] = {"seconds": terms, "left_out_error": errors}
        for term, seconds in terms.items():
            print(f"{stage:8} {term:16} {seconds * 1e6:12.2f} us")
        worst = max(errors.values(), key=abs)
        print(f"{stage:8} {'worst error':16} {worst:+12.1%} of a file predicted from the others")
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
