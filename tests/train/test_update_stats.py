"""What a step says of its updates is true: over trained tokens, by hand numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms.compose import compose
from mmrl.algorithms.stages.credit import pair
from mmrl.backend.local import LocalBackend
from mmrl.backend.world import World
from mmrl.config import OptimizerConfig
from mmrl.objectives.named import OBJECTIVES
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy
from mmrl.train.learner import Learner
from mmrl.train.losses import token_batch
from mmrl.train.measure import entropy, head_gradient_norms, measured
from mmrl.train.trainer import update_metrics
from mmrl.train.update_stats import Tally, UpdateStats, summary
from mmrl.types import Group, Response, Sample, Score, TrainSample
from tests.algorithms.cases import context
from tests.train.test_learner import Gradients

LENGTHS = ((5, 3), (1, 2), (4, 8))


@pytest.fixture
def groups(encoder: Encoder, ask: Callable[..., Sample]) -> list[Group]:
    """Three prompts with two answers of random tokens to each, one of them right."""
    rng = np.random.default_rng(8)
    scores = (Score({}, None, reward=1.0), Score({}, None, reward=0.0))
    return [
        Group(
            encoder.prompt(ask((28, 28, i), f"which? {i}")),
            tuple(Response(rng.integers(100, 400, n), np.full(n, -6.0), "", "stop") for n in ns),
            scores,
        )
        for i, ns in enumerate(LENGTHS)
    ]


def paired(groups: list[Group]) -> list[TrainSample]:
    return [s for i, g in enumerate(groups) for s in pair(g, np.array([1.0, -1.0]), i)]


def learner(policy: Policy, algorithm: Algorithm, **options: Any) -> Learner:
    backend = options.pop("backend", None) or Gradients(policy)
    return Learner(
        policy, algorithm, backend, temperature=1.0, tokens_per_micro_batch=300, **options
    )


def moved(policy: Policy) -> None:
    """Take the policy away from where its reference was copied."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.02 * parameter.abs().mean() * torch.randn_like(parameter)


@pytest.mark.parametrize("placement", ["loss", "reward", "token-reward"])
@pytest.mark.parametrize("updates", [Updates(), Updates(1, 3), Updates(2, 2)], ids=str)
def test_the_kl_is_the_mean_over_trained_tokens_in_every_placement(
    placement: str, updates: Updates, policy: Policy, groups: list[Group]
) -> None:
    """Nothing moves between the updates, so their number cannot change a mean over tokens."""
    name = "reinforce_pp" if placement == "token-reward" else "grpo"
    algorithm = replace(
        compose({"name": name, "kl": {"placement": placement, "coefficient": 0.3}}),
        updates=updates,
    )
    made = learner(policy, algorithm)
    moved(policy)
    samples = paired(groups)
    own, ref = made.own(samples), made.score(samples, made._reference.only())
    sampled = iter(own)
    groups = [
        replace(g, responses=tuple(replace(r, logprobs=next(sampled)) for r in g.responses))
        for g in groups
    ]
    hidden = replace(groups[1], scores=(groups[1].scores[0], Score({}, None, reward=None)))
    shaped = algorithm.shape_rewards(made.observe([groups[0], hidden, groups[2]]), context())
    stats = made.update(algorithm.train_samples(shaped, context()), 0.3)
    trained = [0, 1, 2, 4, 5]  # the fourth answer could not be scored
    gaps = [own[i] - ref[i] for i in trained]
    estimate = np.concatenate([_estimate(algorithm, gap) for gap in gaps])
    assert abs(estimate.mean()) > 1e-3
    assert stats.kl == pytest.approx(estimate.mean(), rel=1e-3)
    assert stats.tokens == updates.passes * len(estimate)
    assert stats.updates == updates.planned


def _estimate(algorithm: Algorithm, gap: np.ndarray) -> np.ndarray:
    """k1, k2 and k3 of own minus reference log-probs."""
    assert algorithm.kl is not None
    estimates = {"k1": gap, "k2": gap**2 / 2, "k3": np.exp(-gap) - 1 + gap}
    return estimates[algorithm.kl.estimator]


def test_replayed_answers_have_their_kl_too(policy: Policy, groups: list[Group]) -> None:
    """Groups that come back from a buffer were not measured when rewards were shaped."""
    algorithm = compose({"name": "grpo", "kl": {"placement": "reward", "coefficient": 0.3}})
    made = learner(policy, algorithm)
    moved(policy)
    seen = [*algorithm.shape_rewards(made.observe(groups[:2]), context()), groups[2]]
    stats = made.update(algorithm.train_samples(seen, context()), 0.3)
    samples = paired(groups)
    gaps = zip(made.own(samples), made.score(samples, made._reference.only()), strict=True)
    wanted = np.concatenate([_estimate(algorithm, own - ref) for own, ref in gaps])
    assert stats.kl == pytest.approx(wanted.mean(), rel=1e-3)


@pytest.mark.parametrize("updates", [Updates(), Updates(1, 3), Updates(2, 1)], ids=str)
def test_the_entropy_is_the_mean_over_trained_tokens(
    updates: Updates, policy: Policy, groups: list[Group]
) -> None:
    samples = paired(groups)
    samples[5] = replace(samples[5], mask=np.arange(8) < 3)
    algorithm = replace(compose({"name": "grpo"}), updates=updates)
    stats = learner(policy, algorithm).update(samples, 0.0)
    each = measured(policy, samples, 300, {"h": entropy(policy, 1.0)})["h"]
    wanted = np.concatenate([h[s.mask] for h, s in zip(each, samples, strict=True)])
    assert stats.entropy == pytest.approx(wanted.mean(), rel=1e-4)


def test_what_there_is_nothing_of_is_not_shown(policy: Policy, groups: list[Group]) -> None:
    """A step without updates has no loss; an algorithm without a KL, a clip, none of these."""
    masked = [replace(s, mask=np.zeros_like(s.mask)) for s in paired(groups)]
    idle = learner(policy, compose({"name": "grpo"})).update(masked, 0.0)
    nothing = dict.fromkeys(("train/tokens", "train/updates", "train/skipped"), 0.0)
    assert update_metrics(idle) == nothing
    plain = {"tokens", "updates", "skipped", "loss", "entropy", "grad_norm", "learning_rate"}
    clip = {"clip_share", "clip_share_low", "clip_share_high"}
    for name, more in {
        "likelihood": set(),
        "cispo": {"bounded_share"},
        "gspo": clip,
        "cpgd": clip,
        "nft": {"clip_share", "clip_share_high", "bounded_share"},
    }.items():
        algorithm = replace(compose({"name": "grpo"}), objective=OBJECTIVES[name])
        stats = learner(policy, algorithm).update(paired(groups), 0.0)
        found = update_metrics(stats).keys()
        assert found == {f"train/{known}" for known in plain | more}, name


def test_the_clip_is_counted_over_trained_tokens_of_all_updates() -> None:
    """By hand: 2 of 3 tokens are clipped above, 1 of 5 below; 3 of 8, not the mean of shares."""

    def tally(advantage: float, shifts: list[float], masked: int) -> Tally:
        length = len(shifts) + masked
        old = np.full(length, -1.0)
        sample = TrainSample(
            None,  # type: ignore[arg-type]
            Response(np.arange(length), old, "", "stop"),
            np.full(length, advantage),
            np.arange(length) < len(shifts),
            old_logprobs=old,
        )
        logprobs = torch.tensor([*(old[: len(shifts)] + shifts), *[3.0] * masked])
        batch = token_batch([sample], [np.ones(length)], logprobs)
        made = Tally()
        objective = compose({"name": "grpo"}).objective
        made.add(batch, torch.tensor(1.0), entropy=logprobs, **vars(objective.bounds(batch)))
        return made

    up, down = tally(1.0, [0.3, 0.3, 0.1], 2), tally(-1.0, [-0.3, 0.3, 0.0, 0.0, 0.1], 1)
    stats = summary([up, down])
    assert stats.clip_share == pytest.approx(3 / 8)
    assert stats.clip_share_high == pytest.approx(2 / 8)
    assert stats.clip_share_low == pytest.approx(1 / 8)
    assert (stats.tokens, stats.updates) == (8, 2)


class Pair(World):
    """A world of two, the other of which has given what it has."""

    def __init__(self, other: Any) -> None:
        super().__init__()
        self.other = other

    def gather(self, value: Any) -> list[Any]:
        return [value, self.other]


def test_processes_add_up_their_tokens() -> None:
    """One of 6 tokens, one of 2; a process without a micro-batch knows no names."""
    mine = Tally()
    mine.loss, mine.tokens, mine.sums = 0.5, 6, {"entropy": 3.0, "kl": 0.6}
    mine.add_up(Pair((0.25, 2, {"entropy": 5.0, "kl": 0.2})))
    stats = summary([mine])
    assert (stats.loss, stats.tokens) == (0.75, 8)
    assert stats.entropy == pytest.approx(1.0) and stats.kl == pytest.approx(0.1)
    idle = Tally()
    idle.add_up(Pair((0.25, 2, {"entropy": 5.0, "low": 1.0})))
    assert summary([idle]).entropy == 2.5 and summary([idle]).clip_share == 0.5


def rates(policy: Policy, groups: list[Group], steps: list[int], **config: Any) -> list[float]:
    """The rates that steps of four planned updates used, with as many groups as are given."""
    backend = LocalBackend(policy.model, OptimizerConfig(learning_rate=1.0, **config), 12)
    algorithm = replace(compose({"name": "grpo"}), updates=Updates(1, 4))
    made = learner(policy, algorithm, backend=backend)
    found = []
    for step in steps:
        stats = made.update(paired(groups), 0.0, step)
        used = {group["lr"] for group in backend._optimizer.param_groups}
        assert stats.learning_rate is not None and used == {stats.learning_rate}
        found.append(stats.learning_rate)
    return found


def test_the_rate_is_the_one_used_and_runs_its_course(policy: Policy, groups: list[Group]) -> None:
    """Three steps of four planned updates; two groups make two, at the first two places."""
    config = {"warmup_steps": 8, "schedule": "linear"}
    assert rates(policy, groups[:2], [1, 2, 3], **config) == [2 / 8, 6 / 8, 1 - 1 / 4]
    assert rates(policy, groups, [1, 2, 3], **config) == [3 / 8, 7 / 8, 1 - 2 / 4]
    # A step that trained nothing takes nothing from the schedule, one that resumes is where it was.
    assert rates(policy, groups[:2], [3], **config) == [1 - 1 / 4]


def test_a_sample_that_stands_twice_in_a_batch_has_its_values_twice(
    policy: Policy, groups: list[Group]
) -> None:
    first, other, *_ = paired(groups)
    batch = [first, other, first]
    made = learner(policy, compose({"name": "grpo"}))
    own = made.own(batch)
    assert own[0].all() and np.allclose(own[0], own[2], atol=1e-5)
    measures = {"h": entropy(policy, 1.0)}
    one, _, two = measured(policy, batch, 300, measures)["h"]
    assert one.all() and np.allclose(one, two, atol=1e-5)
    norm, _, again = head_gradient_norms(policy, batch, 300, 1.0)
    assert norm > 0 and norm == pytest.approx(again)
    group = replace(groups[0], responses=(groups[0].responses[0],) * 2)
    entropies = learner(policy, compose({"name": "egsw"})).observe([group, group])
    values = [value for g in entropies for value in g.extra.entropy]
    assert len(values) == 4 and all(v.all() for v in values)
    # Trained twice, it counts twice.
    stats = made.update(batch, 0.0)
    assert stats.tokens == 5 + 3 + 5 and isinstance(stats, UpdateStats)
