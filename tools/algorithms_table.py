"""Do the algorithms learn? Ten of them from the same start, with the same steps and seeds.

StepGRPO needs steps to pay: it counts row by row (`digit_rows`), and so does a GRPO beside it.

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrl import api
from mmrl.config import load_config
from mmrl.runlog.journal import Journal

ROOT = Path(__file__).parent.parent
CONFIGS = {
    "digit_count": ROOT / "configs" / "quickstart.yaml",
    "digit_rows": ROOT / "configs" / "digit_rows" / "stepgrpo_qwen2_5_vl.yaml",
}
START, END = "<!-- algorithms table -->", "<!-- end of algorithms table -->"


@dataclass(frozen=True)
class Entry:
    """A row of the table: an algorithm, the task it is shown on, and its options."""

    name: str
    task: str = "digit_count"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.name if self.task == "digit_count" else f"{self.name}-{self.task}"


ENTRIES = (
    Entry("grpo"),
    Entry(
        "share_grpo",
        options={
            "group_size": 4,
            "templates": ["Look closely. {text}"],
            "changes": ["rotate_90_cw", "rotate_90_ccw", "rotate_180", "mirror", "noise_10"],
        },
    ),
    Entry("dapo"),
    Entry("gspo"),
    Entry("rloo"),
    Entry("reinforce_pp"),
    Entry("cppo"),
    Entry("gpg"),
    Entry("dr_grpo"),
    Entry("stepgrpo", "digit_rows", {"kl_coefficient": 0.0}),
    Entry("grpo", "digit_rows"),
)
"""With options that give every algorithm eight responses to a question."""


@dataclass(frozen=True)
class Outcome:
    """One run: held-out accuracy, seconds, and means over its steps."""

    entry: Entry
    seed: int
    before: float
    after: float
    seconds: float
    rows: float
    signal: float


def run(entry: Entry, seed: int, out: Path, steps: int | None) -> Outcome:
    """Train once, or read the results of the run that is already there."""
    folder = out / f"{entry.key}-{seed}"
    if not (folder / "result.json").is_file():
        section = {"name": entry.name, "group_size": 8, **entry.options}
        overrides = [
            f"run={folder}",
            f"seed={seed}",
            f"algorithm={json.dumps(section)}",
            "trainer.checkpoint_every=0",
            "trainer.write_rollouts_every=1",
            *([] if steps is None else [f"trainer.steps={steps}"]),
        ]
        api.train(load_config(CONFIGS[entry.task], overrides), overwrite=True)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    metrics = list(Journal(folder / "metrics.jsonl").rows())
    return Outcome(
        entry,
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
        "| algorithm | task | before | after | each seed | seconds | rows a step | with signal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys(o.entry.key for o in outcomes):
        rows = [o for o in outcomes if o.entry.key == key]
        mean = {
            name: statistics.mean(getattr(o, name) for o in rows)
            for name in ("before", "after", "seconds", "rows", "signal")
        }
        each = ", ".join(f"{o.after:.1%}" for o in rows)
        lines.append(
            f"| `{rows[0].entry.name}` | {rows[0].entry.task} | {mean['before']:.1%} "
            f"| {mean['after']:.1%} | {each} | {mean['seconds']:.0f} | {mean['rows']:.0f} "
            f"| {mean['signal']:.0%} |"
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
    keys = [entry.key for entry in ENTRIES]
    parser.add_argument("--names", nargs="+", default=keys, choices=keys)
    parser.add_argument("--steps", type=int, help="default: the quickstart's")
    parser.add_argument("--out", type=Path, default=Path("runs/algorithms"))
    parser.add_argument("--write", type=Path, help="document with the table's marks")
    args = parser.parse_args()
    outcomes = [
        run(entry, seed, args.out, args.steps)
        for entry in ENTRIES
        if entry.key in args.names
        for seed in args.seeds
    ]
    command = f"python tools/algorithms_table.py --seeds {' '.join(map(str, args.seeds))}"
    text = f"{table(outcomes)}\n\n`{command}`, {os.cpu_count()} cores, no GPU."
    (args.out / "table.md").write_text(f"{text}\n", encoding="utf-8")
    if args.write:
        write(args.write, text)
    print(text)


if __name__ == "__main__":
    main()
