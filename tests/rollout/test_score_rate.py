"""Light scores keep up with a rollout: 2,000 answers a second on two cores."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
ENOUGH = 2_000


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("bench_scoring")


@pytest.mark.slow
def test_two_workers_grade_two_thousand_light_answers_a_second(bench: Any) -> None:
    # By CPU time of all processes: what else runs on the machine does not decide the test.
    for task, rate in zip(bench.LIGHT, bench.measure(bench.LIGHT, 4_000, 2), strict=True):
        assert rate.answers == 4_000 and rate.cpu_seconds > 0
        assert rate.by_cpu(2) >= ENOUGH, task


def test_the_answers_are_golds_prompts_and_broken_golds(bench: Any) -> None:
    first, second, third, *rest = bench.jobs_of("counting", 40)
    assert len(rest) == 37
    assert third.answer.text and first.answer.text.startswith(third.answer.text)
    assert "<answer> </answer>" in second.answer.text
