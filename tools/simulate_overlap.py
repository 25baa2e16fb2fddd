"""Simulate rollouts that overlap with updates on clusters of any size: no measurement.

    python tools/simulate_overlap.py --size 7B --devices 8 64 512

Answers have lengths of their own (log-normal, cut at the limit). A rollout device decodes so many
side by side, each step reading the weights and the caches; a free place takes the next answer. A
training device computes at a share of its peak. Nothing is measured: bandwidth, peak and shares
are the flags' assumptions. What is exact is the schedule: with a staleness of k, batch n may be
sampled with weights that lack the last k updates, so

    its rollout starts when batch n-1 is sampled and update n-1-k is done,
    its update  starts when it is sampled and update n-1 is done.

k = 0 takes all devices for either stage in turn; k > 0 takes the split into rollout and training
devices that is fastest.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from plan_table import SIZES, write_config

from mmrl.config import RunConfig
from mmrl.doctor.memory import token_cache
from mmrl.doctor.shape import Shape, measure

BYTES = 2  # bfloat16


@dataclass(frozen=True)
class Cluster:
    """What a device does in a second, and how much of it a stage reaches. All assumed."""

    bytes_a_second: float
    operations_a_second: float
    link_bytes_a_second: float
    decode_share: float
    train_share: float
    places: int


@dataclass(frozen=True)
class Load:
    """A step's work: answers and their lengths, prompt tokens, of a model of this shape."""

    shape: Shape
    prompts: int
    group: int
    prompt_tokens: int
    mean_tokens: float
    spread: float
    max_tokens: int

    def lengths(self, rng: np.random.Generator) -> np.ndarray:
        """Tokens of every answer of a step."""
        centre = np.log(self.mean_tokens) - self.spread**2 / 2
        drawn = rng.lognormal(centre, self.spread, self.prompts * self.group)
        return np.clip(drawn, 1, self.max_tokens)


def rollout_seconds(load: Load, cluster: Cluster, lengths: np.ndarray, devices: int) -> float:
    """Until the last device has decoded its last answer; answers are dealt out in turn."""
    prefill = 2 * load.shape.parameters * load.prompts * load.prompt_tokens
    prefill /= devices * cluster.operations_a_second * cluster.train_share
    shares = (lengths[i::devices] for i in range(min(devices, len(lengths))))
    return prefill + max(_decode(load, cluster, share) for share in shares)


def _decode(load: Load, cluster: Cluster, lengths: np.ndarray) -> float:
    """One device: all that stand side by side move at one pace, so a heap of ends is enough."""
    speed = cluster.bytes_a_second * cluster.decode_share
    weights = load.shape.parameters * BYTES / speed
    context = load.prompt_tokens + load.mean_tokens / 2
    cache = token_cache(load.shape, BYTES) * context / speed
    waiting, standing, done, seconds = list(lengths[::-1]), [], 0.0, 0.0
    while waiting or standing:
        while waiting and len(standing) < cluster.places:
            heapq.heappush(standing, done + waiting.pop())
        end = heapq.heappop(standing)
        seconds += (end - done) * (weights + cache * (len(standing) + 1))
        done = end
    return seconds


def update_seconds(load: Load, cluster: Cluster, lengths: np.ndarray, devices: int) -> float:
    """Forward, recomputation and backward of every trained token; a prompt is trained on once."""
    tokens = load.prompts * load.prompt_tokens + float(lengths.sum())
    operations = 8 * load.shape.parameters * tokens
    return operations / (devices * cluster.operations_a_second * cluster.train_share)


def sync_seconds(load: Load, cluster: Cluster) -> float:
    """The weights go to every rollout device once."""
    return load.shape.parameters * BYTES / cluster.link_bytes_a_second


def schedule(
    rollouts: Sequence[float], updates: Sequence[float], staleness: int
) -> Iterator[tuple[float, float, float, float]]:
    """Starts and ends of every batch's rollout and update, by the rule above."""
    sampled, updated = 0.0, [0.0] * (staleness + 1)
    for rollout, update in zip(rollouts, updates, strict=True):
        begun = max(sampled, updated[-1 - staleness])
        sampled = begun + rollout
        start = max(sampled, updated[-1])
        updated = [*updated[1:], start + update] if staleness else [start + update]
        yield begun, sampled, start, start + update


def step_seconds(rollouts: Sequence[float], updates: Sequence[float], staleness: int) -> float:
    """Mean seconds a step once the pipeline is full."""
    ends = [end for *_, end in schedule(rollouts, updates, staleness)]
    skipped = min(staleness + 1, len(ends) - 2)
    return (ends[-1] - ends[skipped]) / (len(ends) - 1 - skipped)


def together(load: Load, cluster: Cluster, devices: int, steps: int) -> float:
    """Seconds a step where all devices roll out, then all train."""
    rng = np.random.default_rng(0)
    drawn = [load.lengths(rng) for _ in range(steps)]
    rollouts = [rollout_seconds(load, cluster, x, devices) for x in drawn]
    updates = [
        update_seconds(load, cluster, x, devices) + sync_seconds(load, cluster) for x in drawn
    ]
    return step_seconds(rollouts, updates, staleness=0)


def apart(
    load: Load, cluster: Cluster, devices: int, staleness: int, steps: int
) -> tuple[float, int]:
    """Seconds a step with devices for rollouts alone, and how many of them are fastest."""
    rng = np.random.default_rng(0)
    drawn = [load.lengths(rng) for _ in range(steps)]
    found = []
    for eighths in range(1, 8):
        rolling = devices * eighths // 8
        rollouts = [rollout_seconds(load, cluster, x, rolling) for x in drawn]
        updates = [
            update_seconds(load, cluster, x, devices - rolling) + sync_seconds(load, cluster)
            for x in drawn
        ]
        found.append((step_seconds(rollouts, updates, staleness), rolling))
    return min(found)


def shape_of(size: str) -> Shape:
    with tempfile.TemporaryDirectory() as folder:
        values = {
            "run": "unused",
            "model": {"path": str(write_config(Path(folder), size))},
            "data": {"task": "unused", "path": "unused"},
            "trainer": {"steps": 1},
        }
        return measure(RunConfig.model_validate(values))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="7B", help="of Qwen2.5-VL")
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--staleness", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--prompts-a-device", type=int, default=16, help="of a step")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=1200)
    parser.add_argument("--mean-tokens", type=float, default=600.0, help="of an answer")
    parser.add_argument("--spread", type=float, default=0.8, help="of the logarithm of lengths")
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--places", type=int, default=64, help="answers side by side on a device")
    parser.add_argument("--bandwidth", type=float, default=3.35e12, help="bytes a second of memory")
    parser.add_argument("--peak", type=float, default=9.9e14, help="operations a second, bfloat16")
    parser.add_argument("--link", type=float, default=5e10, help="bytes a second between devices")
    parser.add_argument("--decode-share", type=float, default=0.5, help="of the bandwidth, reached")
    parser.add_argument("--train-share", type=float, default=0.35, help="of the peak, reached")
    parser.add_argument("--steps", type=int, default=40, help="simulated")
    return parser.parse_args()


def main() -> int:
    args = parse()
    shape = shape_of(args.size)
    cluster = Cluster(
        args.bandwidth, args.peak, args.link, args.decode_share, args.train_share, args.places
    )
    print(f"SIMULATED, {args.size}; seconds a step (rollout devices), speed-up over together")
    head = "".join(f"{f'staleness {k}':>24}" for k in args.staleness)
    print(f"{'devices':>8}{'together':>10}{head}")
    for devices in args.devices:
        load = Load(
            shape,
            args.prompts_a_device * devices,
            args.group,
            args.prompt_tokens,
            args.mean_tokens,
            args.spread,
            args.max_tokens,
        )
        base = together(load, cluster, devices, args.steps)
        cells = []
        for k in args.staleness:
            seconds, rolling = apart(load, cluster, devices, k, args.steps)
            cells.append(f"{seconds:.1f} ({rolling}) {base / seconds:.2f}x")
        print(f"{devices:>8}{base:>10.1f}" + "".join(f"{cell:>24}" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
