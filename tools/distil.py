"""How soon does a student count as well as its teacher? GRPO makes the teacher, `opd` the student.

    OMP_NUM_THREADS=1 python tools/distil.py OUT --seeds 0 1 --write docs/teachers.md

The teacher is the quickstart's run of 100 steps; students start where it started and take 33 steps
of as many answers. A teacher's word on a token needs no group: 64 questions x 2 take the place of
16 x 8, and each batch is trained on twice. Prints a Markdown table of held-out accuracy by step. A
run that is already there is not repeated; `--write` puts the table between the marks of a document.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmrl import api
from mmrl.config import load_config
from mmrl.runlog.journal import Journal

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "configs" / "quickstart.yaml"
START, END = "<!-- distillation table -->", "<!-- end of distillation table -->"
EVERY, STEPS = 11, 33


def teach(out: Path) -> Path:
    """Train the teacher."""
    return _train(out / "teacher", out, [])


def distil(out: Path, teacher: Path, seed: int) -> Path:
    """Train a student on the teacher's word alone, in a third of its steps."""
    algorithm: dict[str, Any] = {"name": "opd", "group_size": 2}
    algorithm["updates"] = {"mini_batches": 4, "passes": 2}
    return _train(
        out / f"student-{seed}",
        out,
        [
            f"seed={seed}",
            f"algorithm={json.dumps(algorithm)}",
            f"reference.path={teacher}",
            "trainer.prompts_per_step=64",
            f"trainer.steps={STEPS}",
        ],
    )


def _train(folder: Path, out: Path, overrides: Sequence[str]) -> Path:
    if not (folder / "result.json").is_file():
        data = out / "digits"
        common = [
            f"run={folder}",
            f"data.path={data}/digit_count/train.jsonl",
            f"data.eval_path={data}/digit_count/test.jsonl",
            f"data.recipe.out={data}",
            f"trainer.eval_every={EVERY}",
            "trainer.checkpoint_every=0",
        ]
        api.train(load_config(QUICKSTART, [*common, *overrides]), overwrite=True)
    return folder


def curve(folder: Path) -> dict[int, float]:
    """Held-out accuracy by step, the start and the end among them."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    rows = Journal(folder / "metrics.jsonl").rows()
    found = {int(r["step"]): r["eval/digit_count"] for r in rows if "eval/digit_count" in r}
    return {0: result["before"], **found, result["steps"]: result["after"]}


def table(teacher: Path, students: Sequence[Path]) -> str:
    """Markdown: a row a step, the teacher's own run and every student beside it."""
    curves = [curve(folder) for folder in (teacher, *students)]
    steps = sorted({step for each in curves for step in each})
    names = ["GRPO, the teacher", *(f"`opd`, seed {f.name.rpartition('-')[2]}" for f in students)]
    lines = [f"| step | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for step in steps:
        cells = (f"{each[step]:.1%}" if step in each else "" for each in curves)
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    teacher = teach(arguments.out)
    found = table(teacher, [distil(arguments.out, teacher, seed) for seed in arguments.seeds])
    print(found)
    if arguments.write:
        text = arguments.write.read_text(encoding="utf-8")
        before, _, rest = text.partition(START)
        _, _, after = rest.partition(END)
        arguments.write.write_text(f"{before}{START}\n{found}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
