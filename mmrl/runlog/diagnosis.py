"""Plain-language lines about a run that is going wrong, from the rows of `metrics.jsonl`."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

Row = Mapping[str, Any]

WINDOW = 10  # steps that a share is averaged over
TRUNCATED, UNPARSABLE, ZERO_VARIANCE, UNSCORABLE = 0.25, 0.25, 0.8, 0.02  # alarm above
SOLVED, HOPELESS = 0.9, 0.1  # metric above and below which equal rewards mean easy and hard
FLAT_STEPS, FLAT_SIGMAS = 40, 2.0
COLLAPSE_SHARE = 0.5  # of the best smoothed reward
FLAT_SAMPLING = 0.7  # of the greedy metric, below which sampled answers are much worse
FLAT_SAMPLING_GAP = 0.1
MEMORY_STEPS, MEMORY_QUARTERS = 20, 4
MEMORY_WARM_UP = 10  # steps in which memory may grow as it likes
MEMORY_SLOPE = 2.0  # MiB a step


def diagnose(
    rows: Sequence[Row], *, max_new_tokens: int | None = None, held_out: Row | None = None
) -> list[str]:
    """Say what is wrong and what to do, one line each, worst first; no line: nothing was found.

    `rows` are in step order; a missing, null or NaN value says nothing. Rewards, answers and memory
    are compared within the last phase only: another one may ask and pay otherwise. `held_out` is
    the last evaluation, whose answers were greedy, as in `eval_after.json`.
    """
    present = [row for row in rows if row.get("phase") == rows[-1].get("phase")]
    checks: tuple[Callable[[Sequence[Row]], str | None], ...] = (
        _unscorable,
        lambda rows: _truncated(rows, max_new_tokens),
        _unparsable,
        _equal_rewards,
        _collapse,
        _flat,
        lambda rows: below_greedy(held_out or {}, _recent(rows, "metric/mean")),
        _memory,
    )
    found = [_media(rows), _not_a_number(rows), *(check(present) for check in checks)]
    return [line for line in found if line is not None]


def series(rows: Sequence[Row], name: str) -> list[tuple[int, float]]:
    """Collect (step, value) where the value is a finite number."""
    found = []
    for row in rows:
        step, value = finite(row.get("step")), finite(row.get(name))
        if step is not None and value is not None:
            found.append((int(step), value))
    return found


def finite(value: Any) -> float | None:
    """Return a finite number as a float, anything else as None."""
    if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        return float(value)
    return None


def _recent(rows: Sequence[Row], name: str) -> float:
    values = [value for _, value in series(rows[-WINDOW:], name)]
    return sum(values) / len(values) if values else math.nan


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"


def _media(rows: Sequence[Row]) -> str | None:
    total = sum(value for _, value in series(rows, "media/without"))
    if total == 0:
        return None
    return (
        f"{total:.0f} samples were trained without their media; this must be 0: "
        "look for placeholders without features in the family's encode"
    )


def _not_a_number(rows: Sequence[Row]) -> str | None:
    for row in rows:
        for name in ("train/loss", "train/grad_norm"):
            if name in row and finite(row[name]) is None:
                return (
                    f"{name} is not a number at step {row.get('step')}: lower "
                    "optimizer.learning_rate, or set model.dtype=float32"
                )
    return None


def _unscorable(rows: Sequence[Row]) -> str | None:
    share = _recent(rows, "share/unscorable")
    if not share > UNSCORABLE:
        return None
    return (
        f"{_percent(share)} of answers could not be scored (the verifier failed or ran out of "
        "time) and are left out of the baseline: read their reason in rollouts.jsonl"
    )


def _truncated(rows: Sequence[Row], max_new_tokens: int | None) -> str | None:
    share = _recent(rows, "share/truncated")
    if not share > TRUNCATED:
        return None
    limit = f" of {max_new_tokens} tokens" if max_new_tokens else ""
    return (
        f"{_percent(share)} of completions hit the length limit{limit}: "
        "raise rollout.max_new_tokens"
    )


def _unparsable(rows: Sequence[Row]) -> str | None:
    share = _recent(rows, "share/unparsable")
    cut_off = _recent(rows, "share/truncated")
    # Answers that were cut off rarely parse; the length limit is then the thing to say.
    if not share - (cut_off if cut_off > TRUNCATED else 0.0) > UNPARSABLE:
        return None
    return (
        f"{_percent(share)} of answers do not parse: say the expected form in the prompt, or "
        "train on reference answers first (a supervised phase)"
    )


def _equal_rewards(rows: Sequence[Row]) -> str | None:
    share = _recent(rows, "share/zero_variance")
    if not share > ZERO_VARIANCE:
        return None
    metric = _recent(rows, "metric/mean")
    advice = "raise rollout.temperature or the number of responses per group"
    if metric >= SOLVED:
        advice = "the task is nearly solved; train on harder records"
    elif share > 0.995 and _recent(rows, "reward/std") == 0:
        return (
            f"every answer to every prompt earned the same, {_recent(rows, 'reward/mean'):g}: see "
            "in rollouts.jsonl whether the reward reads them as they are written; if it does, "
            "start with easier records or supervision"
        )
    elif metric <= HOPELESS:
        advice = "the task is too hard for this model; start with easier records or supervision"
    amount = "all groups have" if share > 0.995 else f"{_percent(share)} of groups have"
    return f"{amount} equal rewards, which teach nothing: {advice}"


def _collapse(rows: Sequence[Row]) -> str | None:
    points = series(rows, "reward/mean")
    if len(points) < 3 * WINDOW:
        return None
    values = [value for _, value in points]
    means = [sum(values[i : i + WINDOW]) / WINDOW for i in range(len(values) - WINDOW + 1)]
    best = max(range(len(means)), key=means.__getitem__)
    if means[best] <= 0 or means[-1] > COLLAPSE_SHARE * means[best]:
        return None
    return (
        f"the reward fell from {means[best]:.3f} (step {points[best + WINDOW - 1][0]}) to "
        f"{means[-1]:.3f}: lower optimizer.learning_rate, add a KL term, or go back to an "
        "earlier checkpoint"
    )


def _flat(rows: Sequence[Row]) -> str | None:
    points = series(rows, "reward/mean")
    solved = _recent(rows, "metric/mean") >= SOLVED
    if len(points) < FLAT_STEPS or solved or _recent(rows, "share/zero_variance") > ZERO_VARIANCE:
        return None
    values = [value for _, value in points]
    quarter = len(values) // 4
    (start, start_error), (end, end_error) = map(_mean_error, (values[:quarter], values[-quarter:]))
    if abs(end - start) > FLAT_SIGMAS * math.hypot(start_error, end_error):
        return None
    return (
        f"the reward has not moved in {len(values)} steps ({start:.3f} at first, {end:.3f} now): "
        "raise optimizer.learning_rate, or check that good answers earn more than bad ones"
    )


def below_greedy(held_out: Row, sampled: float) -> str | None:
    """Say that sampled answers are much worse than greedy ones, which evaluations report.

    Released checkpoints are often so: the reward sees what is sampled, the user what is greedy.
    Says nothing of several tasks, whose means are over other shares of the records.
    """
    greedy = finite(held_out.get("metric"))
    if greedy is None or held_out.get("better") == "lower" or held_out.get("others"):
        return None
    if not sampled < min(FLAT_SAMPLING * greedy, greedy - FLAT_SAMPLING_GAP):
        return None
    return (
        f"sampled answers score {sampled:.3f} where greedy ones score {greedy:.3f} on held-out "
        "records: most groups see few right answers; lower rollout.temperature, set rollout.top_p, "
        "or warm up on reference answers for longer"
    )


def _mean_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error (ddof 1)."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def _memory(rows: Sequence[Row]) -> str | None:
    for name, label in (("memory/peak", "host"), ("memory/cuda_peak", "GPU")):
        slope = memory_slope(series(rows, name)[MEMORY_WARM_UP:])
        if slope > MEMORY_SLOPE:
            return (
                f"{label} memory grows by {slope:.1f} MiB a step over the last {MEMORY_STEPS} "
                "steps: something is kept from step to step"
            )
    return None


def memory_slope(points: Sequence[tuple[int, float]]) -> float:
    """MiB a step over the last 20 steps; 0 unless every quarter of them grew.

    One jump (a longer prompt than ever before) is no leak, so the growth must be everywhere.
    """
    window = points[-(MEMORY_STEPS + 1) :]
    if len(window) <= MEMORY_STEPS:
        return 0.0
    quarter = MEMORY_STEPS // MEMORY_QUARTERS
    marks = [window[i * quarter][1] for i in range(MEMORY_QUARTERS + 1)]
    if any(later <= earlier for earlier, later in pairwise(marks)):
        return 0.0
    return (window[-1][1] - window[0][1]) / (window[-1][0] - window[0][0])
