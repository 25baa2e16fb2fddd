"""What is wrong with a run's rewards: equal, falling, flat, or earned by what nobody wants."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmrl.runlog.rows import WINDOW, Row, finite, mean_error, percent, recent, series, trend

ZERO_VARIANCE, ALL = 0.8, 0.995
SOLVED, HOPELESS = 0.9, 0.1  # metric above and below which equal rewards mean easy and hard
FLAT_STEPS, SIGMAS = 40, 2.0
COLLAPSE_SHARE = 0.5  # of the best smoothed reward
FLAT_SAMPLING = 0.7  # of the greedy metric, below which sampled answers are much worse
FLAT_SAMPLING_GAP = 0.1


def equal(rows: Sequence[Row]) -> str | None:
    """Groups whose answers all earn the same."""
    share = recent(rows, "share/zero_variance")
    if not share > ZERO_VARIANCE:
        return None
    metric = recent(rows, "metric/mean")
    advice = "raise rollout.temperature or the number of responses per group"
    if metric >= SOLVED:
        advice = "the task is nearly solved; train on harder records"
    elif share > ALL and recent(rows, "reward/std") == 0:
        return (
            f"every answer to every prompt earned the same, {recent(rows, 'reward/mean'):g}: see "
            "in rollouts.jsonl whether the reward reads them as they are written; if it does, "
            "start with easier records or supervision"
        )
    elif metric <= HOPELESS:
        advice = "the task is too hard for this model; start with easier records or supervision"
    amount = "all groups have" if share > ALL else f"{percent(share)} of groups have"
    return f"{amount} equal rewards, which teach nothing: {advice}"


def collapsed(rows: Sequence[Row]) -> str | None:
    """A reward that was there and is lost."""
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


def flat(rows: Sequence[Row]) -> str | None:
    """A reward that does not move, where the answers are not all those that records hold."""
    if recent(rows, "reward/stored") == recent(rows, "reward/mean"):
        return None
    points = series(rows, "reward/mean")
    solved = recent(rows, "metric/mean") >= SOLVED
    if len(points) < FLAT_STEPS or solved or recent(rows, "share/zero_variance") > ZERO_VARIANCE:
        return None
    if abs(trend(rows, "reward/mean")) > SIGMAS:
        return None
    values = [value for _, value in points]
    quarter = len(values) // 4
    (start, _), (end, _) = map(mean_error, (values[:quarter], values[-quarter:]))
    return (
        f"the reward has not moved in {len(values)} steps ({start:.3f} at first, {end:.3f} now): "
        "raise optimizer.learning_rate, or check that good answers earn more than bad ones"
    )


def hacked(rows: Sequence[Row]) -> str | None:
    """A reward that rises while the task's own number falls."""
    if not (trend(rows, "reward/mean") > SIGMAS and trend(rows, "metric/mean") < -SIGMAS):
        return None
    parts = {name for row in rows for name in row if name.startswith("reward/")}
    rising = {name: trend(rows, name) for name in parts - {"reward/mean", "reward/std"}}
    most = max((n for n in rising if rising[n] > SIGMAS), key=rising.__getitem__, default="")
    named = f"{most} rises most" if most else "none of its parts explains it"
    return (
        f"the reward rises while the metric falls ({named}): answers earn by what the task does "
        "not want; read some in the report, and lower that part's weight (docs/rewards.md)"
    )


def below_greedy(held_out: Row, sampled: float) -> str | None:
    """Say that sampled answers are much worse than greedy ones, which evaluations report.

    Released checkpoints are often so: the reward sees what is sampled, the user what is greedy.
    Says nothing of several tasks, whose means are over other shares of the records.
    """
    greedy = finite(held_out.get("metric"))
    if greedy is None or held_out.get("better") == "lower" or held_out.get("others"):
        return None
    if math.isnan(sampled) or not sampled < min(FLAT_SAMPLING * greedy, greedy - FLAT_SAMPLING_GAP):
        return None
    return (
        f"sampled answers score {sampled:.3f} where greedy ones score {greedy:.3f} on held-out "
        "records: most groups see few right answers; lower rollout.temperature, set rollout.top_p, "
        "or warm up on reference answers for longer"
    )
