"""Targets as long as their records are hard, and phases that learn what still fails."""

from __future__ import annotations

import pytest

from mmrl.algorithms.compose import compose
from mmrl.algorithms.pass_rate_estimates import Params, build
from mmrl.algorithms.stages.samplers import Failed
from mmrl.engines.targets import as_long_as_hard
from mmrl.errors import UserError
from mmrl.types import Reference, Sample
from tests.algorithms.cases import context, group

RANKED = (("middling", 1.0), ("no", 1.0), ("quite long, and right", 1.0), ("wrong" * 9, 0.0))


def sample(rate: float | None, ranked: tuple[tuple[str, float | None], ...] = RANKED) -> Sample:
    meta = {} if rate is None else {"pass_rate": rate}
    return Sample("1", "t", (), None, meta=meta, reference=Reference(ranked=ranked))


@pytest.mark.parametrize(
    ("rate", "text"), [(1.0, "no"), (0.5, "middling"), (0.0, "quite long, and right"), (0.9, "no")]
)
def test_the_harder_the_longer_and_never_what_earned_less(rate: float, text: str) -> None:
    assert as_long_as_hard(sample(rate)) == text


def test_without_completions_or_without_a_rate() -> None:
    assert as_long_as_hard(Sample("1", "t", (), None)) is None
    with pytest.raises(UserError, match="`mmrl rate` adds them"):
        as_long_as_hard(sample(None))
    assert as_long_as_hard(sample(0.0, (("a", None), ("bb", None)))) == "bb"


def test_what_failed_is_asked_again_and_measured_anew() -> None:
    algorithm = build(Params(group_size=2))
    state = context()
    groups = [group([1.0, 1.0], sample="a"), group([1.0, 0.0], sample="b"), group([None, None])]
    assert algorithm.train_samples(groups, state) == [] and algorithm.sampler is not None
    assert state.state == {"pass_rates": {"a": 1.0, "b": 0.5}}
    asked = [Sample(name, "t", (), None) for name in "abc"]
    chosen = Failed().epoch(asked, state)
    assert chosen is not None and sorted(chosen) == [1, 2], "c was never asked"
    assert Failed(0.5).epoch(asked, state) == [2]
    assert algorithm.sampler.epoch(asked, state) == [0, 1, 2], "also those with a rate"
    with pytest.raises(UserError, match="earlier phase"):
        Failed().epoch(asked, context())
    assert compose({"name": "sft", "sampler": "failed"}).sampler == Failed()
