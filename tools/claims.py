r"""Does each system's own claim show in miniature? System and control, three seeds, its own metric.

    OMP_NUM_THREADS=1 python tools/claims.py cppo ton        # these; --all for every one
    python tools/claims.py --page                            # only docs/claims.md anew

A claim is a file of configs/claims: what is claimed, on which ground (a run of
configs/claims/grounds), what system and control have otherwise than it, and what is counted. Both
arms train on the same seeds, and arms that several claims share run once. A run that is already in
OUT is not repeated. Rows go to configs/claims/results.json, of which docs/claims.md is made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

sys.path.insert(0, str(Path(__file__).parent))

from claims_measures import measured
from claims_page import page, spread
from claims_records import make_records

from mmrl import api
from mmrl.config import RunConfig
from mmrl.validation import Section, read_values, validate

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "configs" / "claims"
RESULTS = FOLDER / "results.json"
PAGE = ROOT / "docs" / "claims.md"
OUT = Path("runs/claims")
START = "start:"
"""What a model's path begins with that a run of configs/claims/grounds trains beforehand."""
ARMS = ("system", "control")

Verdict = Literal["shows", "does not show", "opposite", "shows, at a cost"]


class Measure(Section):
    """A number of a run: of its metrics or rollouts (tools/claims_measures.py)."""

    name: str
    last: int | None = Field(None, gt=0, description="over so many last steps; default: all")


class Guard(Section):
    """What must not get worse by more than `within` for the claim to count."""

    name: str = "accuracy"
    within: float = Field(0.05, ge=0)


class Claim(Section):
    """A file of configs/claims."""

    paper: str = Field(description="its file in configs/papers")
    claim: str = Field(description="what the paper says, in a line, in the metric counted here")
    ground: str = Field(description="a run of configs/claims/grounds")
    against: str = Field("GRPO", description="what the control is")
    metric: Measure
    better: Literal["higher", "lower"]
    beyond: float | None = Field(None, description="what the system's number must be better than")
    guard: Guard | None = Field(None, description="at equal accuracy, for claims that say so")
    also: tuple[Measure, ...] = Field((), description="reported beside it")
    setting: str = Field(description="where it is otherwise than the paper's, and what was tried")
    system: Mapping[str, Any] = Field(description="sections over the ground's")
    control: Mapping[str, Any] = Field({}, description="sections over the ground's")


@dataclass(frozen=True)
class Row:
    """What became of a claim: its metric in every run of both arms, and what that means."""

    claim: str
    system: list[float]
    control: list[float]
    verdict: Verdict
    beside: Mapping[str, Mapping[str, list[float]]]


def read_claim(name: str) -> Claim:
    """A file of configs/claims by its name."""
    return validate(Claim, read_values(FOLDER / f"{name}.yaml"), f"claims/{name}.yaml")


def names() -> list[str]:
    """Every claim, in the order of the names."""
    return [path.stem for path in sorted(FOLDER.glob("*.yaml"))]


def ground_file(name: str) -> Path:
    """Where a ground is, or a run that others start from."""
    return FOLDER / "grounds" / f"{name}.yaml"


def sections(claim: Claim, arm: str) -> dict[str, Any]:
    """The run of an arm, without a seed and a folder of its own."""
    ground = read_values(ground_file(claim.ground))
    return over(ground, getattr(claim, arm))


def over(under: Any, given: Any) -> Any:
    """`given` over what there is, key by key."""
    if isinstance(under, dict) and isinstance(given, Mapping):
        return {**under, **{key: over(under.get(key), value) for key, value in given.items()}}
    return given


def fingerprint(values: Mapping[str, Any]) -> str:
    """What tells the settings of two runs apart, wherever they are carried out."""
    text = json.dumps({**values, "run": ""}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def settings(claim: Claim) -> str:
    """What tells apart results of a claim as it is now from those of one that was otherwise."""
    made = [fingerprint(sections(claim, arm)) for arm in ARMS]
    counted = [m.model_dump() for m in (claim.metric, *claim.also)]
    guard = claim.guard.model_dump() if claim.guard else None
    asked = {"arms": made, "counted": counted, "guard": guard, "better": claim.better}
    return fingerprint(asked if claim.beyond is None else {**asked, "beyond": claim.beyond})


def trained(values: Mapping[str, Any], out: Path, seed: int) -> Path:
    """The folder of a run with these sections, carried out unless it is there."""
    folder = out / "runs" / f"{fingerprint(values)}-{seed}"
    if not (folder / "result.json").is_file():
        model = dict(values["model"])
        if model["path"].startswith(START):
            model["path"] = str(started(model["path"].removeprefix(START), out))
        config = {**values, "model": model, "run": str(folder), "seed": seed}
        api.train(validate(RunConfig, config, str(folder)), overwrite=True)
    return folder


def started(name: str, out: Path) -> Path:
    """The last checkpoint of a run that other runs start from; it has one seed."""
    folder = trained(read_values(ground_file(name)), out, 0)
    steps = sorted((folder / "checkpoints").glob("step_*"), key=lambda p: int(p.name[5:]))
    return steps[-1]


def tried(claim: Claim, seeds: Sequence[int], out: Path) -> Row:
    """Carry a claim's runs out, and judge it."""
    runs = {arm: [trained(sections(claim, arm), out, seed) for seed in seeds] for arm in ARMS}

    def of(measure: Measure) -> dict[str, list[float]]:
        return {
            arm: [measured(run, measure.name, measure.last) for run in runs[arm]] for arm in ARMS
        }

    counted = of(claim.metric)
    guarded = [Measure(name=claim.guard.name)] if claim.guard else []
    beside = {measure.name: of(measure) for measure in (*guarded, *claim.also)}
    held = claim.guard is None or keeps(beside[claim.guard.name], claim.guard.within)
    found = judged(claim, counted["system"], counted["control"], held=held)
    return Row(claim.claim, counted["system"], counted["control"], found, beside)


def keeps(values: Mapping[str, Sequence[float]], within: float) -> bool:
    """True if the system's median is at most `within` below the control's."""
    lost = statistics.median(values["control"]) - statistics.median(values["system"])
    return lost <= within


def judged(
    claim: Claim, system: Sequence[float], control: Sequence[float], *, held: bool
) -> Verdict:
    """The verdict of a claim; its system must also be better than what it names, for every seed."""
    found = verdict(system, control, claim.better, held=held)
    if claim.beyond is None or found == "opposite":
        return found
    reached = verdict(system, [claim.beyond] * len(system), claim.better)
    return found if reached == "shows" else "does not show"


def verdict(
    system: Sequence[float], control: Sequence[float], better: str, *, held: bool = True
) -> Verdict:
    """`shows` where every seed says so, `opposite` where every seed says the contrary.

    `held`: what was not to get worse did not.
    """
    sign = 1 if better == "higher" else -1
    gains = [sign * (s - c) for s, c in zip(system, control, strict=True)]
    if all(gain > 0 for gain in gains):
        return "shows" if held else "shows, at a cost"
    return "opposite" if all(gain < 0 for gain in gains) else "does not show"


def stored() -> dict[str, Any]:
    """The results that docs/claims.md is made of."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def store(name: str, row: Row, seeds: Sequence[int]) -> None:
    """Put a row into the results, in the place of an earlier one."""
    entry = {
        "system": row.system,
        "control": row.control,
        "verdict": row.verdict,
        "beside": row.beside,
        "seeds": list(seeds),
        "settings": settings(read_claim(name)),
        "machine": f"{os.cpu_count()} cores, no GPU, one thread",
        "command": f"OMP_NUM_THREADS=1 python tools/claims.py {name}",
    }
    rows = {**stored(), name: entry}
    text = json.dumps(dict(sorted(rows.items())), indent=1)
    RESULTS.write_text(text + "\n", encoding="utf-8")


def line(name: str, row: Mapping[str, Any]) -> str:
    """A result in a line."""
    told = " vs ".join(f"{spread(row[arm])}" for arm in ARMS)
    return f"{name}: {row['verdict']}: {read_claim(name).metric.name} {told}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names()))
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--page", action="store_true", help="run nothing, write docs/claims.md")
    args = parser.parse_args()
    asked = names() if args.all else args.names
    if unknown := set(asked) - set(names()):
        parser.error(f"no claim {', '.join(sorted(unknown))}")
    if asked:
        make_records()
    for name in asked:
        store(name, tried(read_claim(name), args.seeds, args.out), args.seeds)
        print(line(name, stored()[name]), file=sys.stderr if args.json else sys.stdout, flush=True)
    if args.json:
        print(json.dumps({name: stored()[name] for name in asked}, indent=1))
    PAGE.write_text(page({n: read_claim(n) for n in names()}, stored()), encoding="utf-8")


if __name__ == "__main__":
    main()
