"""Old log-probs: the rule by hand, and what the learner compares with in either precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.algorithm import Updates
from mmrl.algorithms.compose import compose
from mmrl.algorithms.stages.credit import pair
from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.model_config import ModelConfig
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy, load_policy
from mmrl.train.correction import Correction
from mmrl.train.learner import Learner
from mmrl.train.old_logprobs import compared_with
from mmrl.types import Group, Response, Sample, Score, TrainSample
from tests.algorithms.cases import group
from tests.conftest import TINY
from tests.train.test_learner import Gradients

SEQUENCE = Clipped(low=1e-6, high=1e-6, ratio="sequence-mean")
"""It clips every response whose ratio is not 1 to float32 rounding."""


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("corrected", [False, True])
def test_the_rule(several: bool, exact: bool, corrected: bool) -> None:
    """Fresh: sampled where several updates follow an exact engine. Older: always, uncorrected."""
    (first, *_), *_ = pair(group([1.0]), np.zeros(1), 0), None
    samples = [first, replace(first, older=True), replace(first, old_logprobs=None)]
    made = compared_with(samples, several=several, exact=exact, corrected=corrected)
    assert [s.old_logprobs is not None for s in made] == [
        several and exact and not corrected,
        not corrected,
        False,
    ]
    assert all(s.old_logprobs is None or s.old_logprobs is first.old_logprobs for s in made)


def half(dtype: str) -> Policy:
    return load_policy(ModelConfig(path=TINY, dtype=dtype), torch.device("cpu"))  # type: ignore[arg-type]


@pytest.fixture
def rolled(ask: Callable[..., Sample]) -> Callable[[Policy], list[TrainSample]]:
    """Real rollouts of a policy: four images, three answers of up to 24 tokens each."""

    def roll(policy: Policy) -> list[TrainSample]:
        encoder = Encoder(policy.family)
        prompts = [encoder.prompt(ask((28, 28, i), f"how many? {'x' * i}")) for i in range(4)]
        answers = HFEngine(policy).generate(prompts, [3] * 4, Sampling(24), 0)
        encoder.close()
        scores = tuple(Score({}, None, reward=r) for r in (1.0, 0.0, 0.0))
        groups = [Group(p, tuple(a), scores) for p, a in zip(prompts, answers, strict=True)]
        advantages = np.array([1.0, -1.0, 1.0])
        return [s for i, g in enumerate(groups) for s in pair(g, advantages, i)]

    return roll


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the responses of every forward pass that is made for log-probs."""
    seen: list[int] = []
    whole = Policy.logprobs

    def counted(policy: Policy, layout: Any, *arguments: Any) -> Any:
        seen.append(len(layout.targets))
        return whole(policy, layout, *arguments)

    monkeypatch.setattr(Policy, "logprobs", counted)
    return seen


def update(
    policy: Policy,
    samples: list[TrainSample],
    updates: Updates,
    objective: Clipped = SEQUENCE,
    **options: Any,
) -> tuple[Any, Gradients]:
    algorithm = replace(compose({"name": "grpo"}), objective=objective, updates=updates)
    backend = Gradients(policy)
    learner = Learner(
        policy, algorithm, backend, temperature=1.0, tokens_per_micro_batch=300, **options
    )
    return learner.update(samples, 0.0), backend


@pytest.mark.parametrize("updates", [Updates(1, 2), Updates(2, 2), Updates(3, 1)], ids=str)
def test_in_half_precision_no_ratio_leaves_1_before_an_update(
    updates: Updates, rolled: Callable[[Policy], list[TrainSample]]
) -> None:
    """Nothing moves the weights here; the engine's own log-probs would be clipped at once."""
    policy = half("bfloat16")
    samples = rolled(policy)
    stats, _ = update(policy, samples, updates)
    assert stats.updates == updates.planned
    assert stats.clip_share == 0.0
    engines = [replace(s, older=True) for s in samples]  # keeps what the engine says
    stats, _ = update(policy, engines, updates)
    assert stats.clip_share > 0.1


def test_gspo_itself_starts_unclipped_in_half_precision(
    rolled: Callable[[Policy], list[TrainSample]],
) -> None:
    policy = half("bfloat16")
    algorithm = compose({"name": "gspo", "updates": {"mini_batches": 2}})
    assert algorithm.objective == Clipped(low=3e-4, high=4e-4, ratio="sequence-mean")
    learner = Learner(
        policy, algorithm, Gradients(policy), temperature=1.0, tokens_per_micro_batch=300
    )
    samples = rolled(policy)
    own = learner.own(samples)
    gaps = [abs((o - s.response.logprobs).mean()) for o, s in zip(own, samples, strict=True)]
    assert np.mean(np.array(gaps) > 4e-4) > 0.5  # what it would clip of the engine's rounding
    assert learner.update(samples, 0.0).clip_share == 0.0


def test_an_exact_engine_spares_the_pass(
    rolled: Callable[[Policy], list[TrainSample]], forwards: list[int]
) -> None:
    """In float32 what was sampled is the trainer's to rounding, and a second look costs a pass."""
    policy = half("float32")
    samples = rolled(policy)
    wide = Clipped(low=1e-4, high=1e-4, ratio="sequence-mean")
    tokens = sum(len(s.response.ids) for s in samples)
    stats, _ = update(policy, samples, Updates(1, 2), wide)
    assert stats.clip_share == 0.0 and sum(forwards) == tokens
    forwards.clear()
    stats, _ = update(policy, samples, Updates(1, 2), wide, other_engine=True)
    assert stats.clip_share == 0.0 and sum(forwards) == 2 * tokens


def noisy(samples: list[TrainSample]) -> list[TrainSample]:
    """The same from an engine that is a tenth of a nat off, in either direction."""
    rng = np.random.default_rng(0)
    made = []
    for sample in samples:
        response = sample.response
        off = response.logprobs + 0.1 * rng.choice([-1.0, 1.0], len(response.ids))
        response = Response(response.ids, off, "", "stop")
        made.append(replace(sample, response=response, old_logprobs=off))
    return made


def test_another_engine_is_not_compared_with(
    rolled: Callable[[Policy], list[TrainSample]],
) -> None:
    policy = half("float32")
    samples = noisy(rolled(policy))
    theirs, _ = update(policy, samples, Updates(1, 2))
    own, _ = update(policy, samples, Updates(1, 2), other_engine=True)
    assert theirs.clip_share > 0 and own.clip_share == 0


@pytest.mark.parametrize("other_engine", [False, True])
def test_a_single_update_does_not_look_at_the_engine(
    other_engine: bool, rolled: Callable[[Policy], list[TrainSample]], forwards: list[int]
) -> None:
    policy = half("float32")
    samples = rolled(policy)
    forwards.clear()
    _, plain = update(policy, samples, Updates(), other_engine=other_engine)
    stats, off = update(policy, noisy(samples), Updates(), other_engine=other_engine)
    assert torch.equal(plain.steps[0], off.steps[0]) and plain.steps[0].norm() > 0
    assert stats.clip_share == 0.0
    assert sum(forwards) == 2 * sum(len(s.response.ids) for s in samples)


def test_a_correction_and_the_ratio_share_one_pass(
    rolled: Callable[[Policy], list[TrainSample]], forwards: list[int]
) -> None:
    """The weight has what the engine is off, the ratio has nothing of it."""
    policy = half("float32")
    samples = noisy(rolled(policy))
    forwards.clear()
    stats, _ = update(
        policy, samples, Updates(1, 2), correction=Correction("token_truncate", np.exp(0.05))
    )
    tokens = sum(len(s.response.ids) for s in samples)
    assert sum(forwards) == 2 * tokens
    assert stats.clip_share == 0.0
    # About half of the tokens are 0.1 nats below, so their weight of exp(0.1) is cut.
    assert stats.correction_bounded == pytest.approx(0.5, abs=0.15)


def test_what_is_not_trained_is_not_scored(
    rolled: Callable[[Policy], list[TrainSample]], forwards: list[int]
) -> None:
    policy = half("bfloat16")
    samples = rolled(policy)
    samples[0] = replace(samples[0], mask=np.zeros_like(samples[0].mask))
    forwards.clear()
    update(policy, samples, Updates(2, 1))
    assert sum(forwards) == 3 * sum(len(s.response.ids) for s in samples[1:])
