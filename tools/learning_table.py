r"""Does it learn, by RL? Runs both digit tasks with several seeds, and with shuffled rewards.

    python tools/learning_table.py --seeds 0 1 2 --out runs/learning
    python tools/learning_table.py --tasks digit_count --control-seeds --set model.dtype=bfloat16 \
        --out runs/bfloat16

Prints a Markdown table of held-out accuracy before and after, one row a run, and writes it with
the results to OUT. A run that is already there is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrl import api
from mmrl.config import load_config

ROOT = Path(__file__).parent.parent
CONFIGS = {
    "digit_count": ROOT / "configs" / "quickstart.yaml",
    "digit_box": ROOT / "configs" / "digit_box" / "grpo_qwen2_5_vl.yaml",
}


@dataclass(frozen=True)
class Outcome:
    """Held-out accuracy of one run before and after training, and its wall-clock seconds."""

    task: str
    control: str
    seed: int
    before: float
    after: float
    seconds: float


def run(task: str, control: str, seed: int, out: Path, settings: Sequence[str]) -> Outcome:
    """Train once, or read the result of the run that is already there."""
    folder = out / f"{task}-{control}-{seed}"
    if not (folder / "result.json").is_file():
        overrides = [
            f"run={folder}",
            f"seed={seed}",
            f"trainer.reward_control={control}",
            "trainer.write_rollouts_every=10",
            *settings,
        ]
        api.train(load_config(CONFIGS[task], overrides), overwrite=True)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return Outcome(task, control, seed, result["before"], result["after"], result["seconds"])


def table(outcomes: list[Outcome]) -> str:
    """Markdown: every run, and the mean of each kind."""
    lines = ["| task | rewards | seed | before | after | seconds |", "|---|---|---|---|---|---|"]
    kinds = dict.fromkeys((o.task, o.control) for o in outcomes)
    for task, control in kinds:
        rows = [o for o in outcomes if (o.task, o.control) == (task, control)]
        label = "as scored" if control == "none" else "shuffled within groups"
        lines += [
            f"| {task} | {label} | {o.seed} | {o.before:.1%} | {o.after:.1%} | {o.seconds:.0f} |"
            for o in rows
        ]
        before = statistics.mean(o.before for o in rows)
        after = statistics.mean(o.after for o in rows)
        seconds = statistics.mean(o.seconds for o in rows)
        lines.append(
            f"| **{task}** | **{label}** | mean | **{before:.1%}** | **{after:.1%}** "
            f"| {seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--control-seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--tasks", choices=CONFIGS, nargs="+", default=list(CONFIGS))
    parser.add_argument("--set", nargs="+", default=[], help="section.key=value, for all runs")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    args = parser.parse_args()
    kinds = [("none", args.seeds), ("shuffle", args.control_seeds)]
    outcomes = [
        run(task, control, seed, args.out, args.set)
        for control, seeds in kinds
        for task in args.tasks
        for seed in seeds
    ]
    text = table(sorted(outcomes, key=lambda o: (o.task, o.control, o.seed)))
    (args.out / "table.md").write_text(f"{text}\n\n{os.cpu_count()} cores\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
