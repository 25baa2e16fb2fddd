"""Does it learn, in every modality? One supervised start and one GRPO run a kind.

    python tools/modality_runs.py [--kinds audio video ...] [--seed 0] [--out runs/modalities]

Prints a Markdown table of held-out accuracy before and after with bootstrap intervals, and writes
it to OUT/table.md. Starts and runs that are already there are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from make_modality_models import CONFIGS, MODELS, make

from mmrl import api
from mmrl.config import load_config

QUICKSTART = CONFIGS.parent / "quickstart.yaml"
KINDS = ("image", *MODELS)
HEAD = "| kind | task | seed | before | after | seconds |\n|---|---|---|---|---|---|"


def run(kind: str, seed: int, out: Path) -> Path:
    """Train one kind, the quickstart for one picture; the folder of its run."""
    folder = out / f"{kind}-{seed}"
    if not (folder / "result.json").is_file():
        overrides = [f"run={folder}", f"seed={seed}", "trainer.write_rollouts_every=10"]
        if kind == "image":
            config = load_config(QUICKSTART, overrides)
        else:
            overrides.append(f"model.path={make(kind, out / 'models')}")
            config = load_config(CONFIGS / f"{kind}.yaml", overrides)
        api.train(config, overwrite=True)
    return folder


def row(kind: str, seed: int, folder: Path) -> str:
    """A run's line of the table."""
    before, after = (read(folder / f"eval_{when}.json") for when in ("before", "after"))
    seconds = read(folder / "result.json")["seconds"]
    cells = (kind, before["task"], seed, accuracy(before), accuracy(after), f"{seconds:.0f}")
    return f"| {' | '.join(map(str, cells))} |"


def accuracy(evaluation: dict[str, Any]) -> str:
    """A held-out accuracy with its interval."""
    low, high = evaluation["low"], evaluation["high"]
    return f"{evaluation['metric']:.1%} [{low:.1%}, {high:.1%}]"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/modalities"))
    args = parser.parse_args()
    lines = [row(kind, args.seed, run(kind, args.seed, args.out)) for kind in args.kinds]
    text = "\n".join((HEAD, *lines))
    (args.out / "table.md").write_text(f"{text}\n\n{os.cpu_count()} cores\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
