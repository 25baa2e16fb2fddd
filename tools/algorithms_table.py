"""Do the algorithms learn? Ten of them from the same start, with the same steps and seeds.

    python tools/algorithms_table.py --seeds 0 1 2 --write docs/algorithms.md

Prints a Markdown table of held-out accuracy before and after (mean and every seed), seconds, the
rows trained a step and the share of questions with signal. A run that is already there is not
repeated. `--write` puts the table between the marks of a document.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrl import api
from mmrl.config import load_config
from mmrl.journal import Journal

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "configs" / "quickstart.yaml"
START, END = "<!-- algorithms table -->", "<!-- end of algorithms table -->"
ALGORITHMS: Mapping[str, Mapping[str, Any]] = {
    "grpo": {},
    # The start writes answers without steps, so that the step rewards are silent here.
    "stepgrpo": {"group_size": 8, "alpha": 0.0, "validity": 0.0},
    "share_grpo": {
        "group_size": 4,
        "templates": ["Look closely. {text}"],
        "changes": ["rotate_90_cw", "rotate_90_ccw", "rotate_180", "mirror", "noise_10"],
    },
    "dapo": {"group_size": 8},
    "gspo": {"group_size": 8},
    "rloo": {"group_size": 8},
    "reinforce_pp": {"group_size": 8},
    "cppo": {"group_size": 8},
    "gpg": {"group_size": 8},
    "dr_grpo": {"group_size": 8},
}
"""Options that give every algorithm eight responses to a question, as GRPO has them here."""


@dataclass(frozen=True)
class Outcome:
    """One run: held-out accuracy, seconds, and means over its steps."""

    name: str
    seed: int
    before: float
    after: float
    seconds: float
    rows: float
    signal: float


def run(name: str, seed: int, out: Path, steps: int | None) -> Outcome:
    """Train once, or read the results of the run that is already there."""
    folder = out / f"{name}-{seed}"
    if not (folder / "result.json").is_file():
        section = {"name": name, "group_size": 8, **ALGORITHMS[name]}
        overrides = [
            f"run={folder}",
            f"seed={seed}",
            f"algorithm={json.dumps(section)}",
            "trainer.checkpoint_every=0",
            "trainer.write_rollouts_every=1",
            *([] if steps is None else [f"trainer.steps={steps}"]),
        ]
        api.train(load_config(QUICKSTART, overrides), overwrite=True)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    metrics = list(Journal(folder / "metrics.jsonl").rows())
    return Outcome(
        name,
        seed,
        result["before"],
        result["after"],
        result["seconds"],
        statistics.mean(row["train/rows"] for row in metrics),
        signal(Journal(folder / "rollouts.jsonl").rows()),
    )


def signal(groups: Any) -> float:
    """Share of the questions trained on whose responses, over all variants, differ in reward."""
    rewards: dict[tuple[int, str], set[float]] = {}
    for group in groups:
        known = {r["reward"] for r in group["responses"] if r["reward"] is not None}
        rewards.setdefault((group["step"], group["id"]), set()).update(known)
    return statistics.mean(len(found) > 1 for found in rewards.values())


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: a row an algorithm, its seeds side by side."""
    lines = [
        "| algorithm | before | after | each seed | seconds | rows a step | with signal |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(o.name for o in outcomes):
        rows = [o for o in outcomes if o.name == name]
        mean = {
            key: statistics.mean(getattr(o, key) for o in rows)
            for key in ("before", "after", "seconds", "rows", "signal")
        }
        each = ", ".join(f"{o.after:.1%}" for o in rows)
        lines.append(
            f"| `{name}` | {mean['before']:.1%} | {mean['after']:.1%} | {each} "
            f"| {mean['seconds']:.0f} | {mean['rows']:.0f} | {mean['signal']:.0%} |"
        )
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Put the text between the marks of a document."""
    whole = path.read_text(encoding="utf-8")
    before, _, rest = whole.partition(START)
    _, _, after = rest.partition(END)
    if not rest or END not in rest:
        raise SystemExit(f"{path} has no marks {START} and {END}")
    path.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--names", nargs="+", default=list(ALGORITHMS), choices=list(ALGORITHMS))
    parser.add_argument("--steps", type=int, help="default: the quickstart's")
    parser.add_argument("--out", type=Path, default=Path("runs/algorithms"))
    parser.add_argument("--write", type=Path, help="document with the table's marks")
    args = parser.parse_args()
    outcomes = [run(name, seed, args.out, args.steps) for name in args.names for seed in args.seeds]
    command = f"python tools/algorithms_table.py --seeds {' '.join(map(str, args.seeds))}"
    text = f"{table(outcomes)}\n\n`{command}`, {os.cpu_count()} cores, no GPU."
    (args.out / "table.md").write_text(f"{text}\n", encoding="utf-8")
    if args.write:
        write(args.write, text)
    print(text)


if __name__ == "__main__":
    main()
