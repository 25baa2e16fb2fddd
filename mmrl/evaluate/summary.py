"""Scored answers -> the benchmark's number: every record counted, with intervals and pass@k."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from mmrl import task as contract
from mmrl.frame import Frame
from mmrl.runlog.transcript import marks_on
from mmrl.task import Better, Task
from mmrl.types import Sample, Score

BOOTSTRAP_DRAWS = 1000
CONVENTION = (
    "Every record that could be asked is in the denominator: media that do not decode and answers "
    "that reached no verdict count like an answer that is wrong. Records without a usable gold "
    "cannot be asked; they are rejected, counted and listed, and are in no number."
)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """A benchmark number with its 95 % bootstrap interval and what went into it (`CONVENTION`).

    `records` were asked, `samples` answers each; with several, numbers are means over the answers.
    `rejected` records have no usable gold (id and reason); `unreadable` records have media that do
    not decode, which costs each its `samples` answers. `unscorable`, `unparsable` and `truncated`
    count answers. `pass_at_k` is the chance that one of k answers passes `pass_threshold`.
    `official` holds the same answers' numbers by the benchmark's own reading, where it has one.
    `readings` hold the number of some of the answers: by way of asking, by consensus, by votes.
    `breakdown` holds the task's secondary numbers, `parts` mean reward parts.
    """

    task: str
    metric_name: str
    metric: float
    low: float
    high: float
    records: int
    better: Better = "higher"
    samples: int = 1
    unreadable: int = 0
    unscorable: int = 0
    unparsable: int = 0
    truncated: int = 0
    rejected: tuple[Mapping[str, str], ...] = ()
    pass_threshold: float = 1.0
    pass_at_k: Mapping[str, Estimate] = field(default_factory=dict)
    official: Mapping[str, Any] | None = None
    readings: Mapping[str, Any] = field(default_factory=dict)
    breakdown: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    convention: str = CONVENTION
    answers: list[dict[str, Any]] = field(default_factory=list)

    def passes(self, metric: float | None) -> bool:
        """Whether an answer with this metric passes; one without a verdict does not."""
        return reaches(metric, self.pass_threshold, self.better)

    def lines(self) -> list[str]:
        """The numbers in words, for a terminal."""
        direction = "" if self.better == "higher" else ", lower is better"
        lines = [
            f"{self.task} {self.metric_name} {self.metric:.4f} [{self.low:.4f}, {self.high:.4f}]"
            f"{direction} on {self.records} records ({self.unparsable} unparsable, "
            f"{self.truncated} truncated, {self.unscorable} unscorable, "
            f"{self.unreadable} unreadable; {len(self.rejected)} more rejected)"
        ]
        if self.official:
            low, high = self.official["low"], self.official["high"]
            lines.append(f"official reading {self.official['metric']:.4f} [{low:.4f}, {high:.4f}]")
        lines += [
            f"pass@{k} {found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
            for k, found in self.pass_at_k.items()
        ]
        lines += [
            f"{name}: {said.metric:.4f} [{said.low:.4f}, {said.high:.4f}], {said.tokens:.0f} tokens"
            for name, said in self.readings.items()
        ]
        return lines

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Scored:
    """A record's answers with their scores; neither, and the reason, where it is unreadable.

    `lengths` are in tokens, `verdicts` the chances that a verifier gives each answer, if one was
    asked.
    """

    sample: Sample
    texts: tuple[str, ...] = ()
    truncated: tuple[bool, ...] = ()
    scores: tuple[Score, ...] = ()
    unreadable: str = ""
    frames: tuple[Frame, ...] = ()
    lengths: tuple[int, ...] = ()
    verdicts: tuple[float, ...] = ()

    def only(self, places: Sequence[int]) -> Scored:
        """The record with those of its answers alone."""

        def kept(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[i] for i in places) if values else ()

        return replace(
            self,
            texts=kept(self.texts),
            truncated=kept(self.truncated),
            scores=kept(self.scores),
            lengths=kept(self.lengths),
            verdicts=kept(self.verdicts),
        )

    def score(self, index: int) -> Score:
        """The score of an answer; an unreadable record's answers reached no verdict."""
        if self.unreadable:
            return Score(parts={}, metric=None, status="unscorable", reason=self.unreadable)
        return self.scores[index]


def summarise(
    rows: Sequence[Scored],
    task: Task,
    samples: int = 1,
    ks: Sequence[int] = (),
    pass_threshold: float | None = None,
) -> Evaluation:
    """Aggregate scored answers over all records, in their order."""
    scores = [[row.score(j) for j in range(samples)] for row in rows]
    flat = [score for each in scores for score in each]
    names = sorted({name for score in flat for name in score.parts})
    table = _Table(rows, scores, task)
    main = table.metric()
    threshold = default_threshold(task.better) if pass_threshold is None else pass_threshold
    unreadable = sum(bool(row.unreadable) for row in rows)
    return Evaluation(
        task=rows[0].sample.task,
        metric_name=task.metric,
        metric=main.value,
        low=main.low,
        high=main.high,
        better=task.better,
        records=len(rows),
        samples=samples,
        unreadable=unreadable,
        unscorable=sum(score.metric is None for score in flat) - unreadable * samples,
        unparsable=sum(score.status not in ("ok", "unscorable") for score in flat),
        truncated=sum(sum(row.truncated) for row in rows),
        pass_threshold=threshold,
        pass_at_k={str(k): table.pass_at(k, threshold) for k in ks},
        breakdown=table.breakdown(),
        parts={n: float(np.mean([s.parts.get(n, 0.0) for s in flat])) for n in names},
        answers=[
            _answer_row(row, j, score, samples)
            for row, each in zip(rows, scores, strict=True)
            for j, score in enumerate(each)
        ],
    )


def _answer_row(row: Scored, index: int, score: Score, samples: int) -> dict[str, Any]:
    return {
        "id": row.sample.id,
        **({"sample": index} if samples > 1 else {}),
        "text": row.texts[index] if row.texts else "",
        "metric": score.metric,
        "status": score.status,
        "reason": score.reason,
        **({"marks": marks_on(score.marks, row.frames)} if score.marks else {}),
    }


def default_threshold(better: Better) -> float:
    """The metric from which an answer passes: 1 where higher is better, an error of 0 where not."""
    return 1.0 if better == "higher" else 0.0


def reaches(metric: float | None, threshold: float, better: Better) -> bool:
    """Whether a metric is as good as the threshold; None, no verdict, is not."""
    if metric is None:
        return False
    return metric >= threshold if better == "higher" else metric <= threshold


def pass_at_k(answers: int, passed: int, k: int) -> float:
    """Chance that one of k answers drawn without replacement passes: 1 - C(n-c, k) / C(n, k).

    Unbiased for k <= n (Chen et al. 2021, "Evaluating large language models trained on code").
    """
    assert 0 <= passed <= answers and 1 <= k <= answers
    return 1.0 - math.comb(answers - passed, k) / math.comb(answers, k)


class _Table:
    """Metrics [records][samples] and metas of the same shape, for the task's own aggregation."""

    def __init__(
        self, rows: Sequence[Scored], scores: Sequence[Sequence[Score]], task: Task
    ) -> None:
        self._task = task
        self._metrics = [[score.metric for score in each] for each in scores]
        self._values = [[metric or 0.0 for metric in each] for each in self._metrics]
        self._metas = [
            [{**row.sample.meta, **score.evidence} for score in each]
            for row, each in zip(rows, scores, strict=True)
        ]
        self._units = units(row.sample.meta for row in rows)

    def metric(self) -> Estimate:
        if type(self._task).aggregate is contract.Task.aggregate:
            return mean_estimate([float(np.mean(each)) for each in self._values], self._units)
        return estimate(self._aggregate, self._units)

    def breakdown(self) -> dict[str, float]:
        """Secondary numbers, each the mean over those answers whose breakdown has it."""
        found: dict[str, list[float]] = {}
        for values, metas in self._columns(range(len(self._values))):
            for name, value in self._task.breakdown(values, metas).items():
                found.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in found.items()}

    def pass_at(self, k: int, threshold: float) -> Estimate:
        """pass@k over all records; what reached no verdict did not pass."""
        rates = [
            pass_at_k(len(each), sum(reaches(m, threshold, self._task.better) for m in each), k)
            for each in self._metrics
        ]
        return mean_estimate(rates, self._units)

    def _aggregate(self, chosen: Sequence[int]) -> float:
        found = [self._task.aggregate(values, metas) for values, metas in self._columns(chosen)]
        return sum(found) / len(found)

    def _columns(self, chosen: Sequence[int]) -> list[tuple[list[float], list[dict[str, Any]]]]:
        """The chosen records' first answers, their second ones, and so on."""
        return [
            ([self._values[i][j] for i in chosen], [self._metas[i][j] for i in chosen])
            for j in range(len(self._values[0]))
        ]


def units(metas: Any) -> list[list[int]]:
    """What is resampled: records that share a `pair` in their meta together, others alone."""
    found: dict[Any, list[int]] = {}
    for i, meta in enumerate(metas):
        found.setdefault(meta.get("pair", i), []).append(i)
    return list(found.values())


def estimate(aggregate: Callable[[Sequence[int]], float], members: list[list[int]]) -> Estimate:
    """The aggregate of all records, and its 95 % percentile interval over resampled units."""
    rng = np.random.default_rng(0)
    draws = [
        aggregate(
            [i for unit in rng.integers(0, len(members), len(members)) for i in members[unit]]
        )
        for _ in range(BOOTSTRAP_DRAWS)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    value = aggregate(range(sum(map(len, members))))
    return Estimate(float(value), float(low), float(high))


def mean_estimate(values: Sequence[float], members: list[list[int]]) -> Estimate:
    """What `estimate` gives for a plain mean of the records, in less time."""
    rng = np.random.default_rng(0)
    sums = np.array([sum(values[i] for i in unit) for unit in members])
    sizes = np.array([len(unit) for unit in members])
    draws = np.empty(BOOTSTRAP_DRAWS)
    for draw in range(BOOTSTRAP_DRAWS):
        chosen = rng.integers(0, len(members), len(members))
        draws[draw] = sums[chosen].sum() / sizes[chosen].sum()
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(np.mean(values)), float(low), float(high))
