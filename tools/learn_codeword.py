"""Does an environment of another hub train? A tiny model learns verifiers' codeword game by GRPO.

    pip install 'mmrl[verifiers]' && python tools/learn_codeword.py --out runs/codeword

The game (tests/environments/hosted/codeword.py, on the package's own classes) shows two new squares
in each of three turns; nine colours stand for letters, and only the whole word of six counts. It is
played by verifiers, in a process of its own, which calls the policy as it would call any model. A
tiny Qwen2.5-VL is first trained supervised on the right turns, through the same environment, up to
the first checkpoint that says READY of the held-out words right; then by GRPO, for each seed.
Prints held-out accuracy before and after, greedy. What is already there is not repeated. `--python`
names an interpreter that has verifiers where this one does not.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learning_runs import ready, train

READY, EVERY = 0.4, 20
TRAIN, TEST = 400, 100
GAME = Path(__file__).parent.parent / "tests" / "environments" / "hosted"


def data(out: Path, python: str, game: Mapping[str, Any]) -> dict[str, Any]:
    """The data section of the runs; its records are asked for once."""
    return {
        "task": "hosted",
        "params": {
            "host": "verifiers",
            "python": python,
            "settings": {"taskset": {"id": "codeword", **game}},
            "turns": 4,
        },
        "path": str(out / "data" / "train.jsonl"),
        "eval_path": str(out / "data" / "test.jsonl"),
    }


def record(section: Mapping[str, Any]) -> None:
    """Write the records, with the right turns that the game's own data say."""
    from mmrl.environments.host import hosting_of
    from mmrl.environments.recording import record as write
    from mmrl.scoring.tasks import load_task

    first = 0
    for key, count in (("path", TRAIN), ("eval_path", TEST)):
        path = Path(section[key])
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            hosting = hosting_of(load_task(section["task"], section["params"]))
            raw = path.with_suffix(".asked")
            write(hosting, raw, range(first, first + count))
            rows = [json.loads(line) for line in raw.read_text(encoding="utf-8").splitlines()]
            text = "".join(json.dumps({**row, "answers": answers(row)}) + "\n" for row in rows)
            path.write_text(text, encoding="utf-8")
        first += count


def answers(row: Mapping[str, Any]) -> list[str]:
    """What is right to say after each turn: all letters so far."""
    word, said = row["about"]["answer"], 0
    found = []
    for shown in row["about"]["shown"]:
        said += len(shown)
        found.append(word[:said])
    return found


def config(section: Mapping[str, Any], run: Path, model: str, seed: int) -> dict[str, Any]:
    """What all phases share."""
    return {
        "run": str(run),
        "seed": seed,
        "model": {"path": model, "max_prompt_tokens": 1500},
        "data": dict(section),
        "rollout": {
            "max_new_tokens": 40,
            "max_turn_tokens": 10,
            "max_environment_tokens": 600,
            "scoring_workers": 1,
        },
    }


def start(section: Mapping[str, Any], out: Path, steps: int) -> Path:
    """The first checkpoint of the supervised phase that is READY."""
    phase = {
        **config(section, out / "sft", "asset:tiny_qwen2_5_vl", 0),
        "optimizer": {"learning_rate": 1.0e-3, "warmup_steps": 20},
        "trainer": {"prompts_per_step": 16},
    }
    return ready(phase, READY, steps, EVERY).path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/codeword"))
    parser.add_argument("--python", default="")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--sft-steps", type=int, default=200)
    args = parser.parse_args()
    own = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{GAME}{os.pathsep}{own}"  # where its process finds the game
    section = data(args.out, args.python, {"brief": True})
    record(section)
    model = start(section, args.out, args.sft_steps)
    for seed in args.seeds:
        found = train(
            {
                **config(section, args.out / f"grpo-{seed}", str(model), seed),
                "algorithm": {"name": "grpo", "group_size": 8},
                "optimizer": {"learning_rate": 3.0e-4, "warmup_steps": 5, "schedule": "linear"},
                "trainer": {
                    "steps": args.steps,
                    "prompts_per_step": 4,
                    "eval_every": EVERY,
                    "checkpoint_every": EVERY,
                },
            }
        )
        print(
            f"seed {seed}: {found['before']:.1%} -> {found['after']:.1%} in "
            f"{found['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
