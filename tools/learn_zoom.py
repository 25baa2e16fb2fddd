"""Does zooming help where a first look cannot? A tiny model, its zooms, and two controls.

    python tools/learn_zoom.py --out runs/zoom

The question (tools/small_detail.py) is about stripes that are gone at the resolution that the model
first sees; four answers, equally often. Arms: `zoom`, the tool as every task has it; `uncropped`,
the control, whose zooms show the whole picture again; `none`, without tools. A tiny Qwen2.5-VL is
first trained supervised: to zoom at the patch and then answer, through the live tool, up to the
first checkpoint that says READY of the held-out pictures right, where `zoom` and `uncropped` begin;
and to answer at once, for as many steps, where `none` begins. Then GRPO, for each arm and seed.
Prints held-out accuracy before and after, greedy, as a Markdown table. What is already there is not
repeated.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learning_runs import ready, train
from small_detail import SEEN, TURNS, write

if TYPE_CHECKING:
    from mmrl.train.checkpoint import Checkpoint

READY, EVERY = 0.45, 60
TRAIN, TEST = 1200, 100
WORDS = ["<tool_call>", "</tool_call>", '{"name": ', '"zoom"', '"arguments": ', '"bbox_2d": ']
"""Tokens of their own, for the tiny model's tokenizer has not seen a call."""
TASKS = Path(__file__).parent / "small_detail.py"
ARMS: Mapping[str, Mapping[str, Any]] = {
    "zoom": {"task": f"{TASKS}:Look", "params": {"tools": ["zoom"], "tool_turns": TURNS}},
    "uncropped": {"task": f"{TASKS}:Uncropped"},
    "none": {"task": f"{TASKS}:Glance"},
}


def config(out: Path, name: str, arm: str, model: str, seed: int) -> dict[str, Any]:
    """What all runs share."""
    return {
        "run": str(out / name),
        "seed": seed,
        "model": {"path": model, "max_prompt_tokens": 600, "max_pixels": SEEN**2},
        "data": {
            **ARMS[arm],
            "path": str(out / "data" / "train.jsonl"),
            "eval_path": str(out / "data" / "test.jsonl"),
        },
        "rollout": {
            "max_new_tokens": 60,
            "max_turn_tokens": 45,
            "max_environment_tokens": 100,
            "scoring_workers": 1,
        },
    }


def start(out: Path, arm: str, share: float, most: int, every: int) -> Checkpoint:
    """The checkpoint that the arm's runs begin with."""
    shared = config(out, f"sft-{arm}", arm, "asset:tiny_qwen2_5_vl", 0)
    phase = {
        **shared,
        "start": {"add_tokens": WORDS},
        "optimizer": {"learning_rate": 1.5e-3, "betas": [0.9, 0.95], "warmup_steps": 20},
        "trainer": {"prompts_per_step": 16},
    }
    return ready(phase, share, most, every)


def learn(out: Path, arm: str, model: Path, seed: int, steps: int) -> dict[str, Any]:
    """A run of GRPO."""
    return train(
        {
            **config(out, f"{arm}-{seed}", arm, str(model), seed),
            "algorithm": {"name": "grpo", "group_size": 8},
            "optimizer": {"learning_rate": 3.0e-4, "warmup_steps": 5},
            "trainer": {"steps": steps, "prompts_per_step": 4},
        }
    )


def table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Markdown: an arm a row, its seeds and their mean."""
    seeds = max(map(len, results.values()))
    head = ["arm", "before", *(f"seed {r['seed']}" for r in next(iter(results.values()))), "mean"]
    lines = ["| " + " | ".join(head) + " |", "|---" * (seeds + 3) + "|"]
    for arm, found in results.items():
        after = [r["after"] for r in found]
        cells = [found[0]["before"], *after, statistics.mean(after)]
        lines.append(" | ".join([f"| `{arm}`", *(f"{cell:.1%}" for cell in cells)]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/zoom"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--sft-steps", type=int, default=300)
    args = parser.parse_args()
    for seed, (split, count) in enumerate({"train": TRAIN, "test": TEST}.items()):
        records = args.out / "data" / f"{split}.jsonl"
        if not records.is_file():
            write(records, count, seed)
    looking = start(args.out, "zoom", READY, args.sft_steps, EVERY)
    starts = {"zoom": looking.path, "uncropped": looking.path}
    if "none" in args.arms:
        starts["none"] = start(args.out, "none", 0.0, looking.step, looking.step).path
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in args.arms}
    for arm in args.arms:
        for seed in args.seeds:
            found = learn(args.out, arm, starts[arm], seed, args.steps)
            results[arm].append(found)
            print(f"{arm}, seed {seed}: {found['before']:.1%} -> {found['after']:.1%}", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
