"""Records -> the benchmark's number: the same `score()` as in training, every record counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mmrl.errors import MediaError
from mmrl.policy.encoder import Encodes
from mmrl.rollout.engine import Engine, Sampling
from mmrl.rollout.score import Scores, score_groups
from mmrl.task import Task
from mmrl.types import Group, Sample, Score

BOOTSTRAP_DRAWS = 1000
PROMPTS_AT_ONCE = 64


@dataclass(frozen=True)
class Evaluation:
    """A benchmark number with its 95 % bootstrap interval and what went into it.

    `records` counts all; `unreadable` records (media that do not decode) and `unscorable` answers
    count as wrong (metric 0) and are listed. `breakdown` holds the task's secondary numbers,
    `parts` are mean reward parts.
    """

    task: str
    metric_name: str
    metric: float
    low: float
    high: float
    records: int
    unreadable: int = 0
    unscorable: int = 0
    unparsable: int = 0
    truncated: int = 0
    breakdown: dict[str, float] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    samples: Sequence[Sample],
    task: Task,
    encoder: Encodes,
    engine: Engine,
    scorer: Scores,
    sampling: Sampling,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Answer every sample once and aggregate as the task says."""
    groups: list[Group] = []
    unreadable: dict[str, str] = {}
    for start in range(0, len(samples), PROMPTS_AT_ONCE):
        asked, prompts = samples[start : start + PROMPTS_AT_ONCE], []
        for sample, encoded in zip(asked, encoder.encode([(s,) for s in asked]), strict=True):
            if isinstance(encoded, MediaError):
                unreadable[sample.id] = str(encoded)
            else:
                prompts += encoded
        if prompts:
            answers = engine.generate(prompts, [1] * len(prompts), sampling, seed + start)
            groups += [Group(p, tuple(a), ()) for p, a in zip(prompts, answers, strict=True)]
        on_progress(min(start + PROMPTS_AT_ONCE, len(samples)))
    return summarise(samples, task, score_groups(scorer, groups), unreadable)


def summarise(
    samples: Sequence[Sample], task: Task, groups: Sequence[Group], unreadable: dict[str, str]
) -> Evaluation:
    """Aggregate scored answers over all samples, in the samples' order."""
    scores = {g.prompt.sample.id: g.scores[0] for g in groups}
    texts = {g.prompt.sample.id: g.responses[0].text for g in groups}
    missing = Score(parts={}, metric=None, status="unscorable")
    rows = [scores.get(s.id, missing) for s in samples]
    values = [row.metric if row.metric is not None else 0.0 for row in rows]
    metas = [{**s.meta, **row.evidence} for s, row in zip(samples, rows, strict=True)]
    low, high = bootstrap(values, metas, task)
    names = sorted({name for row in rows for name in row.parts})
    return Evaluation(
        task=samples[0].task,
        metric_name=task.metric,
        metric=task.aggregate(values, metas),
        low=low,
        high=high,
        records=len(samples),
        unreadable=len(unreadable),
        unscorable=sum(row.metric is None for row in rows) - len(unreadable),
        unparsable=sum(row.status not in ("ok", "unscorable") for row in rows),
        truncated=sum(g.responses[0].truncated for g in groups),
        breakdown=dict(task.breakdown(values, metas)),
        parts={n: float(np.mean([row.parts.get(n, 0.0) for row in rows])) for n in names},
        answers=[
            {
                "id": sample.id,
                "text": texts.get(sample.id, ""),
                "metric": row.metric,
                "status": row.status,
                "reason": unreadable.get(sample.id, row.reason),
            }
            for sample, row in zip(samples, rows, strict=True)
        ],
    )


def bootstrap(values: Sequence[float], metas: Sequence[Any], task: Task) -> tuple[float, float]:
    """95 % percentile interval of the aggregate over records resampled with replacement.

    Records that share a `pair` in their meta are drawn together.
    """
    units: dict[Any, list[int]] = {}
    for i, meta in enumerate(metas):
        units.setdefault(meta.get("pair", i), []).append(i)
    members = list(units.values())
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(BOOTSTRAP_DRAWS):
        chosen = [i for unit in rng.integers(0, len(members), len(members)) for i in members[unit]]
        draws.append(task.aggregate([values[i] for i in chosen], [metas[i] for i in chosen]))
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
