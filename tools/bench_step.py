"""Time training steps of mmrl and of a peer side by side, on the same tiny Qwen2.5-VL.

Both sides train in processes of their own and take turns, so that a busy machine slows both.
Same model, images, prompt tokens, number of new tokens, dtype, learning rate and reward; one
optimiser step a step. `--peer none` times mmrl alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench_sides import Workload, arguments

QUANTITIES = ("step", "rollout", "update", "cpu")
DIFFERENCES = (
    "mmrl recomputes nothing for a group: it encodes, prefills and trains a prompt once; the peer "
    "does so for each of its answers ('work' counts both).",
    "mmrl's log-probs leave out banned tokens (placeholders, the end); the peer only suppresses "
    "them when sampling.",
    "Scoring runs in-process on both sides (mmrl's worker processes are left out).",
    "'rollout' is prompt encoding and sampling; 'update' is all the rest of the step.",
)


class Side:
    """A process that trains one step whenever it is told to."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.samples: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict(environment),
        )
        self.about = self._answer()

    def step(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def measure(
    workload: Workload, names: Sequence[str], warmup: int, repeats: int, threads: int
) -> list[Side]:
    """Run the sides in turns, each round in the other order; warm-up steps are not kept."""
    subprocess.run(arguments("build", workload), check=True)
    environment = {"OMP_NUM_THREADS": str(threads)}
    sides = [Side(name, arguments(name, workload), environment) for name in names]
    for number in range(warmup + repeats):
        for side in sides[:: 1 if number % 2 else -1]:
            sample = side.step()
            if number >= warmup:
                side.samples.append(sample)
        check_same_work(workload, [side.samples[-1] for side in sides if side.samples])
    for side in sides:
        side.close()
    return sides


def check_same_work(workload: Workload, samples: Sequence[dict[str, Any]]) -> None:
    """Same prompt tokens (images included), same answer lengths, or the comparison is void."""
    prompts = [{tuple(ids) for ids in sample["prompt_ids"]} for sample in samples]
    assert all(p == prompts[0] for p in prompts), "the sides trained on different prompts"
    for sample in samples:
        lengths = sample["answer_lengths"]
        assert lengths == [workload.new_tokens] * workload.prompts * workload.group, lengths
        assert len(set(sample["rewards"])) > 1, "rewards do not differ"


def summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def floors(workload: Workload, prompt_tokens: int) -> dict[str, int]:
    """The least that a step's mathematics needs, a forward being 1 and its way back 2.

    Every picture and every prompt token once, every answer's token once to sample and once to learn
    from; and all of them once more for a reference. An answer's last token is never fed.
    """
    patches = workload.prompts * (workload.pixels // 14) ** 2
    answers = workload.prompts * workload.group * (workload.new_tokens - 1)
    again = 1 if workload.kl else 0
    return {
        "tower": patches * (3 + again),
        "language": (prompt_tokens + answers) * (3 + again) + answers,
    }


def over_floor(work: Mapping[str, int], floor: Mapping[str, int]) -> dict[str, float]:
    """What a side did, by what it had to do, in tower and language layers."""
    units = {"tower": "patches", "language": "tokens"}
    return {
        kind: (work[f"{kind}_{unit}"] + 2 * work[f"{kind}_back"]) / floor[kind]
        for kind, unit in units.items()
    }


def results(sides: Sequence[Side], workload: Workload) -> dict[str, Any]:
    """Medians and spreads by side, and the peer's medians over mmrl's."""
    tokens = sum(len(ids) for ids in sides[0].samples[-1]["prompt_ids"])
    floor = floors(workload, tokens)
    memory = "cuda_peak_mib" if "cuda_peak_mib" in sides[0].samples[0] else "peak_mib"
    found: dict[str, Any] = {
        side.name: {q: summary([s[q] for s in side.samples]) for q in QUANTITIES}
        | {
            "peak_mib": max(s[memory] for s in side.samples),
            "loaded_mib": side.about["loaded_mib"],
            "work": side.samples[-1]["work"],
            "over_floor": over_floor(side.samples[-1]["work"], floor),
        }
        for side in sides
    }
    if len(sides) == 2:
        mine, other = (found[side.name] for side in sides)
        ratios = {q: other[q]["median"] / mine[q]["median"] for q in QUANTITIES}
        found["ratio"] = ratios | {"peak_mib": other["peak_mib"] / mine["peak_mib"]}
    return found


def table(found: dict[str, Any], names: Sequence[str]) -> str:
    """The results as aligned text."""
    lines = [f"{'':16}" + "".join(f"{name:>26}" for name in names) + f"{'ratio':>9}"]

    def row(label: str, cells: Sequence[str], ratio: float | None) -> None:
        shown = f"{ratio:8.2f}x" if ratio is not None else ""
        lines.append(f"{label:16}" + "".join(f"{cell:>26}" for cell in cells) + shown)

    ratios = found.get("ratio", {})
    for quantity in QUANTITIES:
        spans = [found[name][quantity] for name in names]
        cells = [f"{s['median']:.3f} ({s['min']:.3f}-{s['max']:.3f})" for s in spans]
        row(f"{quantity}, s", cells, ratios.get(quantity))
    row("peak, MiB", [f"{found[n]['peak_mib']:.0f}" for n in names], ratios.get("peak_mib"))
    row("loaded, MiB", [f"{found[n]['loaded_mib']:.0f}" for n in names], None)
    for kind in ("tower_patches", "language_tokens"):
        row(kind, [f"{found[n]['work'].get(kind, 0)}" for n in names], None)
    for kind in ("tower", "language"):
        row(f"{kind}/floor", [f"{found[n]['over_floor'][kind]:.2f}" for n in names], None)
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the figures depend on, and how busy the machine was."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "machine": platform.machine(),
        "load_average": os.getloadavg(),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=("trl", "none"), default="trl")
    parser.add_argument("--pixels", type=int, default=224, help="side of the square images")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8, help="answers to a prompt")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--kl", type=float, default=0.0, help="KL coefficient; 0: no reference")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="cores a side may use; with 1, seconds are the work done, not how well it is shared",
    )
    parser.add_argument(
        "--peer-micro-batch", type=int, default=0, help="answers a pass; default: all in one"
    )
    parser.add_argument(
        "--kept-prompt-tokens",
        type=int,
        help="prompt tokens that mmrl's rollouts keep for the update; default: as a run does",
    )
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    return parser.parse_args()


def main() -> None:
    args = parse()
    names = ["mmrl"] + ([args.peer] if args.peer != "none" else [])
    workload = Workload(
        folder="",
        images=args.prompts * (args.warmup + args.repeats),
        prompts=args.prompts,
        group=args.group,
        new_tokens=args.new_tokens,
        pixels=args.pixels,
        kl=args.kl,
        dtype=args.dtype,
        learning_rate=args.learning_rate,
        seed=args.seed,
        peer_micro_batch=args.peer_micro_batch,
        kept=args.kept_prompt_tokens,
    )
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        sides = measure(
            replace(workload, folder=folder), names, args.warmup, args.repeats, args.threads
        )
    found = results(sides, workload)
    print(
        f"{args.prompts} prompts x {args.group} answers x {args.new_tokens} tokens, "
        f"{args.pixels} px, KL {args.kl:g}, {args.dtype} on {sides[0].about['device']} "
        f"with {sides[0].about['torch_threads']} thread(s) a side; "
        f"median (min-max) of {args.repeats} steps after {args.warmup} warm-up"
    )
    print(table(found, names))
    if args.json:
        report = {
            "workload": {k: v for k, v in vars(args).items() if k != "json"},
            "machine": {"before": before, "after": machine()},
            "about": {side.name: side.about for side in sides},
            "results": found,
            "differences": DIFFERENCES,
            "samples": {
                side.name: [
                    {k: v for k, v in s.items() if k != "prompt_ids"}
                    | {"prompt_tokens": [len(ids) for ids in s["prompt_ids"]]}
                    for s in side.samples
                ]
                for side in sides
            },
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
