"""From scores to the benchmark's number: denominators, several answers, pass@k, intervals."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from mmrl import task as contract
from mmrl.evaluate.summary import (
    Scored,
    estimate,
    mean_estimate,
    pass_at_k,
    summarise,
    units,
)
from mmrl.task import Better, mean_by
from mmrl.types import Sample, Score


@dataclass(frozen=True)
class Ratio(contract.Task):
    """A corpus-level metric: sum of hits over sum of golds, which no mean of records gives."""

    name: ClassVar[str] = "ratio"
    metric: ClassVar[str] = "ratio"

    def aggregate(self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
        return sum(m.get("hits", 0) for m in metas) / sum(m["golds"] for m in metas)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        return mean_by("kind", values, metas)


@dataclass(frozen=True)
class Exact(contract.Task):
    name: ClassVar[str] = "exact"
    metric: ClassVar[str] = "accuracy"


@dataclass(frozen=True)
class Error(contract.Task):
    name: ClassVar[str] = "error"
    metric: ClassVar[str] = "mae"
    better: ClassVar[Better] = "lower"


def rows(*metrics: Sequence[float | None]) -> list[Scored]:
    """A record for each sequence of metrics; None has no verdict."""
    return [
        Scored(
            Sample(str(i), "exact", (), None),
            ("",) * len(each),
            (False,) * len(each),
            tuple(Score({}, m, "unscorable" if m is None else "ok") for m in each),
        )
        for i, each in enumerate(metrics)
    ]


def test_aggregates_see_evidence_over_meta_and_every_record() -> None:
    samples = [
        Sample(str(i), "ratio", (), None, meta={"golds": golds, "kind": kind, "hits": 99})
        for i, (golds, kind) in enumerate([(2, "a"), (6, "b"), (2, "a")])
    ]
    samples[2] = Sample("2", "ratio", (), None, meta={"golds": 2, "kind": "a"})
    scored = [
        Scored(samples[0], ("",), (False,), (Score({}, 1.0, evidence={"hits": 2}),)),
        Scored(samples[1], ("",), (False,), (Score({}, 0.5, evidence={"hits": 3}),)),
        Scored(samples[2], unreadable="no such file"),
    ]
    result = summarise(scored, Ratio())
    assert result.metric == pytest.approx((2 + 3) / (2 + 6 + 2))
    assert result.breakdown == {"a": 0.5, "b": 0.5}
    assert result.records == 3 and result.unreadable == 1 and result.unscorable == 0
    assert [row["reason"] for row in result.answers] == ["", "", "no such file"]


def test_what_has_no_verdict_is_in_the_denominator() -> None:
    scored = [*rows([1.0], [1.0], [None]), Scored(Sample("u", "exact", (), None), unreadable="x")]
    result = summarise(scored, Exact())
    assert result.metric == 0.5
    assert (result.records, result.unscorable, result.unreadable) == (4, 1, 1)


def test_several_answers_are_averaged_and_all_counted() -> None:
    scored = [
        *rows([1.0, 0.0, 0.0, 1.0], [None, None, 1.0, 0.0]),
        Scored(Sample("u", "exact", (), None), unreadable="x"),
    ]
    result = summarise(scored, Exact(), samples=4, ks=(1, 2))
    assert result.metric == pytest.approx((0.5 + 0.25 + 0.0) / 3)
    assert (result.unscorable, result.unreadable) == (2, 1)
    assert len(result.answers) == 12
    assert result.pass_at_k["1"].value == pytest.approx(result.metric)
    # 1 - C(2,2)/C(4,2) = 5/6; 1 - C(3,2)/C(4,2) = 1/2; 0
    assert result.pass_at_k["2"].value == pytest.approx((5 / 6 + 1 / 2 + 0) / 3)


def test_a_corpus_metric_of_several_answers_is_that_of_each_column_on_average() -> None:
    sample = Sample("0", "ratio", (), None, meta={"golds": 4, "kind": "a"})
    scores = tuple(Score({}, h / 4, evidence={"hits": h}) for h in (1, 3))
    result = summarise([Scored(sample, ("", ""), (False, False), scores)], Ratio(), samples=2)
    assert result.metric == pytest.approx((1 / 4 + 3 / 4) / 2)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 2), (5, 2, 1), (6, 0, 3), (6, 5, 2), (4, 4, 4)])
def test_pass_at_k_is_the_share_of_subsets_with_a_passing_answer(n: int, c: int, k: int) -> None:
    passed = [1] * c + [0] * (n - c)
    subsets = list(itertools.combinations(passed, k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(max, subsets)) / len(subsets))


def test_an_error_passes_from_below() -> None:
    scored = rows([0.0, 3.0], [2.0, 5.0], [None, None])
    assert summarise(scored, Error(), 2, (2,)).pass_at_k["2"].value == pytest.approx(1 / 3)
    found = summarise(scored, Error(), 2, (2,), pass_threshold=2.0)
    assert found.pass_at_k["2"].value == pytest.approx(2 / 3)
    assert found.better == "lower" and "lower is better" in found.lines()[0]


def test_the_fast_interval_is_the_slow_one() -> None:
    values = np.random.default_rng(1).random(50).tolist()
    pairs = units({"pair": i // 3} if i < 9 else {} for i in range(50))

    def aggregate(chosen: Sequence[int]) -> float:
        return sum(values[i] for i in chosen) / len(chosen)

    slow, fast = estimate(aggregate, pairs), mean_estimate(values, pairs)
    assert fast.value == pytest.approx(slow.value)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high))
    assert fast.low < fast.value < fast.high


def test_the_interval_has_the_width_of_the_binomial() -> None:
    found = mean_estimate([1.0] * 200 + [0.0] * 200, [[i] for i in range(400)])
    half = 1.96 * np.sqrt(0.25 / 400)
    assert found.high - 0.5 == pytest.approx(half, rel=0.1)
    assert 0.5 - found.low == pytest.approx(half, rel=0.1)
