"""Time and memory of an update as answers, prompts, their lengths and pictures grow, in plots.

    OMP_NUM_THREADS=1 python tools/bench_slopes.py --json slopes.json --plot docs/slopes.png

Every size is measured in a process of its own, on the model of bench_step.py: the update of one
group, log-probs and backward, in CPU seconds (median of `--repeats` after one that is not kept) and
memory above what the loaded model takes. `plain` has the prompt again for every answer. The line is
what the arithmetic comes to: seconds a trunk token, a pair of attention and a patch of the tower,
fitted (non-negative least squares) to all sizes at once; what is printed beside a size is measured
over fitted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench_sides import Workload, arguments, peak_mib
from bench_step import machine

PATCH_PIXELS = 14
SIDE = 448
WAYS, COLOURS = ("shared", "plain"), ("tab:blue", "tab:orange")
UNITS = ("a step", "a trunk token", "a pair", "a patch")


@dataclass(frozen=True)
class Size:
    """One group: answers of `length` tokens behind a prompt of about `words` words and pictures."""

    answers: int = 8
    words: int = 500
    length: int = 64
    pictures: int = 0


AXES: Mapping[str, Sequence[Size]] = {
    "answers": [Size(answers=n, length=128) for n in (2, 4, 8, 16, 32)],
    "prompt tokens": [Size(words=n) for n in (500, 1000, 2000, 4000, 8000)],
    "answer tokens": [Size(length=n) for n in (64, 128, 256, 512, 1024, 2048)],
    "pictures": [Size(words=20, pictures=n) for n in (1, 2, 4, 8)],
}
FIELDS = {
    "answers": "answers",
    "prompt tokens": "prompt",
    "answer tokens": "length",
    "pictures": "pictures",
}


def measure(size: Size, way: str, folder: str, repeats: int) -> dict[str, Any]:
    """Update a group of this size some times, in this process."""
    import torch
    from bench_tails import passes, without_sharing

    from mmrl.model_config import ModelConfig
    from mmrl.policy.encoder import Encoder
    from mmrl.policy.packing import Weighted, default_budget
    from mmrl.policy.policy import load_policy
    from mmrl.types import MediaRef, Response, Sample, Text, TrainSample

    config = ModelConfig(path=str(Path(folder) / "model"), max_prompt_tokens=10**6)
    policy = load_policy(config, torch.device("cpu"))
    if way == "plain":
        without_sharing(policy)
        policy.family.plain_inputs = partial(pictures_again, policy.family.placeholder_ids)
    refs = [MediaRef("image", Path(folder) / f"{n}.png") for n in range(size.pictures)]
    encoder = Encoder(policy.family)
    prompt = encoder.prompt(Sample("0", "bench", (*refs, Text("a" * size.words)), None))
    encoder.close()
    rng, weighted = np.random.default_rng(0), []
    for _ in range(size.answers):
        ids = rng.integers(100, 300, size.length)
        response = Response(ids, np.zeros(size.length), "", "stop")
        ones = np.ones(size.length)
        weighted.append(Weighted(TrainSample(prompt, response, ones, ones > 0), ones))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    loaded, seconds = peak_mib(), []
    for _ in range(1 + repeats):
        start = time.process_time()
        for layout, asked in passes(policy, weighted, default_budget(policy.device)):
            policy.logprobs(layout, asked, 1.0)[0].sum().backward()
        policy.model.zero_grad()
        seconds.append(time.process_time() - start)
    patches = size.pictures * (SIDE // PATCH_PIXELS) ** 2
    measured = {"seconds": seconds[1:], "added_mib": peak_mib() - loaded}
    return asdict(size) | measured | {"way": way, "prompt": len(prompt.ids), "patches": patches}


def pictures_again(placeholders: Sequence[int], ids: Any, prompt: Any) -> dict[str, Any]:
    """What the model's own forward is given beside ids [rows, L]: every row has all pictures."""
    import torch

    if not prompt.media:
        return {}
    media = [medium.tensors for medium in prompt.media] * len(ids)
    joined = {key: torch.cat([tensors[key] for tensors in media]) for key in media[0]}
    return joined | {"mm_token_type_ids": torch.isin(ids, torch.tensor(placeholders)).int()}


def floor(point: Mapping[str, Any], way: str) -> np.ndarray:
    """How much of each unit an update of that size cannot do without, sharing or without it [4]."""
    prompt, length, answers = point["prompt"], point["length"], point["answers"]
    again = answers if way == "plain" else 1
    pairs = again * prompt**2 / 2 + answers * (prompt * length + length**2 / 2)
    tokens = again * prompt + answers * length
    return np.array([1.0, tokens, pairs, again * point["patches"]])


def fitted(points: Sequence[Mapping[str, Any]], way: str) -> tuple[np.ndarray, np.ndarray]:
    """Seconds a unit [4], and measured over fitted of each point [N]."""
    from scipy.optimize import nnls

    work = np.stack([floor(point, way) for point in points])
    seconds = np.array([statistics.median(point["seconds"]) for point in points])
    # Errors of small sizes count as much as those of large ones.
    units, _ = nnls(work / seconds[:, None], np.ones(len(seconds)))
    return units, seconds / (work @ units)


def plot(found: Mapping[str, Sequence[dict[str, Any]]], file: Path) -> None:
    """Draw time and memory over every axis; fitted lines are through the floors."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    every = [point for points in found.values() for point in points]
    figure, axes = pyplot.subplots(2, len(found), figsize=(4 * len(found), 6.5), squeeze=False)
    for way, colour in zip(WAYS, COLOURS, strict=True):
        if not any(point["way"] == way for point in every):
            continue
        units, _ = fitted([point for point in every if point["way"] == way], way)
        for (name, points), (above, below) in zip(found.items(), axes.T, strict=True):
            mine = [point for point in points if point["way"] == way]
            over = [point[FIELDS[name]] for point in mine]
            seconds = [statistics.median(point["seconds"]) for point in mine]
            above.plot(over, seconds, "o", color=colour, label=way)
            above.plot(over, [floor(p, way) @ units for p in mine], color=colour, linewidth=1)
            below.plot(over, [p["added_mib"] for p in mine], "o-", color=colour, linewidth=1)
            below.set_xlabel(name)
    for each in axes.flat:
        least = max(max(line.get_ydata()) for line in each.lines if line.get_color() == COLOURS[0])
        most = max(max(line.get_ydata()) for line in each.lines)
        each.set_ylim(0, 1.05 * min(most, 4 * least))  # the rest of what is not shared is far above
        each.set_xlim(left=0)
        each.grid(alpha=0.3)
    axes[0, 0].set_ylabel("an update, CPU seconds")
    axes[1, 0].set_ylabel("memory added, MiB")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=90)


def tell(found: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Print sizes with measured over fitted, and what a unit costs."""
    every = [point for points in found.values() for point in points]
    for way in [way for way in WAYS if any(point["way"] == way for point in every)]:
        units, ratios = fitted([point for point in every if point["way"] == way], way)
        over = iter(ratios)
        for name, points in found.items():
            print(f"{way}, {name}")
            mine = [point for point in points if point["way"] == way]
            for point in mine:
                seconds = point["seconds"]
                print(
                    f"  {point[FIELDS[name]]:6}  {statistics.median(seconds):7.2f} s "
                    f"({min(seconds):.2f}-{max(seconds):.2f})  {next(over):5.2f} of the line  "
                    f"+{point['added_mib']:5.0f} MiB"
                )
            tokens = [floor(point, "shared")[1] for point in mine]
            slope = np.polyfit(tokens, [point["added_mib"] for point in mine], 1)[0]
            print(f"  {slope * 1000:.0f} MiB a thousand tokens of one prompt and its answers")
        costs = ", ".join(f"{u * 1e6:.3g} us {n}" for u, n in zip(units, UNITS, strict=True))
        print(f"{way}: {costs}; measured over fitted {min(ratios):.2f} to {max(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--axes", nargs="*", choices=[*AXES], default=[*AXES])
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--plot", type=Path, help="draw it into this file; needs matplotlib")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point:
        asked = json.loads(args.point)
        point = measure(Size(**asked["size"]), asked["way"], asked["folder"], args.repeats)
        print(json.dumps(point))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in args.axes}
    with tempfile.TemporaryDirectory() as folder:
        built = Workload(folder, 8, 1, 1, 1, SIDE, 0.0, "float32", 0.0, 0, 0)
        subprocess.run(arguments("build", built), check=True)
        for name in args.axes:
            for size in AXES[name]:
                for way in args.ways:
                    asked = {"size": asdict(size), "way": way, "folder": folder}
                    command = [sys.executable, __file__, "--point", json.dumps(asked)]
                    command += ["--repeats", str(args.repeats)]
                    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                    found[name].append(json.loads(ran.stdout.splitlines()[-1]))
    tell(found)
    if args.json:
        report = {"machine": machine(), "points": found}
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
