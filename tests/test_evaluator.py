"""What the evaluator hands to a task's aggregate, with and without a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from mmrl import task as contract
from mmrl.evaluator import summarise
from mmrl.task import mean_by
from mmrl.types import Group, Prompt, Response, Sample, Score


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


def scored(sample: Sample, score: Score) -> Group:
    empty = np.zeros(0, dtype=np.int64)
    prompt = Prompt(sample, (), empty, empty, 0, (), "unit")
    return Group(prompt, (Response(empty, np.zeros(0), "", "stop"),), (score,))


def test_aggregates_see_evidence_over_meta_and_every_record() -> None:
    samples = [
        Sample(str(i), "ratio", (), None, meta={"golds": golds, "kind": kind, "hits": 99})
        for i, (golds, kind) in enumerate([(2, "a"), (6, "b"), (2, "a")])
    ]
    samples[2] = Sample("2", "ratio", (), None, meta={"golds": 2, "kind": "a"})
    groups = [
        scored(samples[0], Score({}, 1.0, evidence={"hits": 2})),
        scored(samples[1], Score({}, 0.5, evidence={"hits": 3})),
    ]
    result = summarise(samples, Ratio(), groups, {"2": "no such file"})
    assert result.metric == pytest.approx((2 + 3) / (2 + 6 + 2))
    assert result.breakdown == {"a": 0.5, "b": 0.5}
    assert result.records == 3 and result.unreadable == 1 and result.unscorable == 0
