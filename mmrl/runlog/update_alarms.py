"""What is wrong with a run's updates and its machine: numbers, gradients, entropy, memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from mmrl.runlog.rows import WINDOW, Row, ends, finite, recent, series

SOLVED = 0.9
SKIPPED = 0.1  # alarm above
SPIKE, SPIKE_HISTORY = 10.0, 20  # times the median of at least so many steps before
CLIPPED = 2.0  # times the median, at which a spike is harmless
COLLAPSED_ENTROPY = 0.1  # of what it was
DRIFT, DRIFT_GROWTH = 0.05, 5.0  # nats a token, and times what it was
MEMORY_STEPS, MEMORY_QUARTERS = 20, 4
MEMORY_WARM_UP = 100  # steps in which pools of memory fill
MEMORY_SLOPE = 2.0  # MiB a step


def not_a_number(rows: Sequence[Row]) -> str | None:
    """A loss or gradient that is none."""
    for row in rows:
        for name in ("train/loss", "train/grad_norm"):
            if name in row and finite(row[name]) is None:
                return (
                    f"{name} is not a number at step {row.get('step')}: lower "
                    "optimizer.learning_rate, or set model.dtype=float32"
                )
    return None


def skipped(rows: Sequence[Row]) -> str | None:
    """Updates that were not made."""
    last = rows[-WINDOW:]
    total = sum(value for _, value in series(last, "train/updates"))
    left_out = sum(value for _, value in series(last, "train/skipped"))
    if not left_out > SKIPPED * total:
        return None
    return (
        f"{left_out:.0f} of the last {total:.0f} updates were skipped for their gradients: lower "
        "optimizer.learning_rate, or raise optimizer.skip_above"
    )


def spiked(rows: Sequence[Row]) -> str | None:
    """A gradient far over those before it."""
    points = series(rows, "train/grad_norm")
    for i in range(max(len(points) - WINDOW, SPIKE_HISTORY), len(points)):
        usual = median(value for _, value in points[:i])
        step, norm = points[i]
        if usual > 0 and norm > SPIKE * usual:
            return (
                f"the gradient's norm was {norm:.3g} at step {step}, {norm / usual:.0f} times its "
                f"median: set optimizer.max_grad_norm={CLIPPED * usual:.1g}, so that no batch can "
                "undo the others, or lower optimizer.learning_rate"
            )
    return None


def certain(rows: Sequence[Row]) -> str | None:
    """Sampling that has become nearly deterministic before the task is solved."""
    found = ends(rows, "train/entropy")
    if found is None or recent(rows, "metric/mean") >= SOLVED:
        return None
    if not found[1] < COLLAPSED_ENTROPY * found[0]:
        return None
    return (
        f"the entropy fell from {found[0]:.3g} to {found[1]:.3g} nats a token, so answers of a "
        "group are nearly the same: lower optimizer.learning_rate, raise rollout.temperature or "
        "algorithm.clip_high, or add a KL term"
    )


def drifted(rows: Sequence[Row]) -> str | None:
    """An engine whose log-probs move away from the trainer's, with the same weights."""
    for name in sorted({n for row in rows for n in row if re.fullmatch(r"parity/[^/]+/mean", n)}):
        values = [abs(value) for _, value in series(rows, name)]
        if len(values) > 1 and values[-1] > max(DRIFT, DRIFT_GROWTH * min(values[:-1])):
            return (
                f"the engine's log-probs are {values[-1]:.2g} nats a token from the trainer's "
                f"({name}), {values[0]:.2g} at first: it does not have the trainer's weights, or "
                "computes otherwise; train with rollout.engine=hf, and report it"
            )
    return None


def leaking(rows: Sequence[Row]) -> str | None:
    """Memory that grows from step to step, but for decoded media, which are kept up to a limit."""
    kept = dict(series(rows, "memory/media"))
    for name, label in (("memory/peak", "host"), ("memory/cuda_peak", "GPU")):
        held = series(rows, name)[MEMORY_WARM_UP:]
        if label == "host":
            held = [(step, value - kept.get(step, 0.0)) for step, value in held]
        slope = memory_slope(held)
        if slope > MEMORY_SLOPE:
            return (
                f"{label} memory grows by {slope:.1f} MiB a step over the last {MEMORY_STEPS} "
                "steps: something is kept from step to step"
            )
    return None


def memory_slope(points: Sequence[tuple[int, float]]) -> float:
    """MiB a step over the last 20 steps; 0 unless every quarter of them has its part in it.

    One jump (a longer prompt than ever before) is no leak, nor is growth that dies away as pools
    of memory fill: of a leak no quarter has less than half of its even share.
    """
    window = points[-(MEMORY_STEPS + 1) :]
    if len(window) <= MEMORY_STEPS:
        return 0.0
    quarter = MEMORY_STEPS // MEMORY_QUARTERS
    marks = [window[i * quarter][1] for i in range(MEMORY_QUARTERS + 1)]
    least = max(marks[-1] - marks[0], 0.0) / MEMORY_QUARTERS / 2
    if any(later - earlier <= least for earlier, later in pairwise(marks)):
        return 0.0
    return (window[-1][1] - window[0][1]) / (window[-1][0] - window[0][0])
