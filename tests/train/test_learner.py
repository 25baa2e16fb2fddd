"""The learner on the tiny model: micro-batching, whole groups, shared pairs and pass filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrl.algorithm import Algorithm
from mmrl.algorithms.compose import compose
from mmrl.backend.local import LocalBackend
from mmrl.config import OptimizerConfig
from mmrl.errors import TrainingError
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy
from mmrl.train.learner import Learner
from mmrl.train.update_stats import UpdateStats
from mmrl.types import Group, Response, Sample, Score
from tests.algorithms.cases import context

REWARDS = ((1.0, 0.0, 0.0), (1.0, 1.0, 0.0))
LENGTHS = ((4, 2, 7), (1, 5, 3))


class Gradients:
    """A backend that keeps the gradient of every step and moves the weights along it, if asked."""

    def __init__(self, policy: Policy, speed: float = 0.0) -> None:
        self.model, self.speed = policy.model, speed
        self.steps: list[Tensor] = []
        self.places: list[int | None] = []

    @property
    def in_step(self) -> bool:
        return False

    @property
    def skips(self) -> bool:
        return False

    def gathered(self) -> AbstractContextManager[None]:
        return nullcontext()

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def send_back(self, roots: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        torch.autograd.backward(roots, gradients)

    def step(self, place: int | None = None) -> float:
        self.places.append(place)
        parts = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        self.steps.append(torch.cat(parts))
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter -= self.speed * parameter.grad
        self.model.zero_grad()
        return float(self.steps[-1].norm())

    @property
    def updates(self) -> int:
        return len(self.steps)

    def rate(self, place: int) -> float:
        return float(place)

    def state(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        return {}, {}

    def load_state(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        pass


@pytest.fixture
def groups(encoder: Encoder, ask: Callable[..., Sample]) -> list[Group]:
    """Two variants of a question with an image each, three responses of random tokens to each."""
    rng = np.random.default_rng(5)
    made = []
    for variant, rewards, lengths in zip("ab", REWARDS, LENGTHS, strict=True):
        sample = replace(ask((28, 28, 1), f"how many? {variant}"), variant=variant)
        responses = tuple(
            Response(rng.integers(100, 400, n), -3.0 - rng.random(n), "", "stop") for n in lengths
        )
        scores = tuple(Score({}, None, reward=r) for r in rewards)
        made.append(Group(encoder.prompt(sample), responses, scores))
    return made


def learner(
    policy: Policy, algorithm: Algorithm, budget: int, rate: float = 0.0
) -> tuple[Learner, Gradients]:
    backend = Gradients(policy, rate)
    made = Learner(policy, algorithm, backend, temperature=1.0, tokens_per_micro_batch=budget)
    return made, backend


def learn(
    made: tuple[Learner, Gradients], algorithm: Algorithm, groups: list[Group]
) -> tuple[list[Tensor], UpdateStats]:
    """Carry out one step and return the gradient of each of its updates."""
    shaped = algorithm.shape_rewards(made[0].observe(groups), context())
    stats = made[0].update(algorithm.train_samples(shaped, context()), 0.1)
    return made[1].steps, stats


@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_prompts_run_once_an_update_in_however_many_parts(
    budget: int, policy: Policy, groups: list[Group]
) -> None:
    """Patches through the tower, prompt tokens through the trunk: as many whatever is packed."""
    algorithm = compose({"name": "grpo", "kl_coefficient": 0.1})
    made = learner(policy, algorithm, budget)
    patches: list[int] = []
    tokens: list[int] = []
    visual, trunk = policy.model.model.visual, policy.model.model.language_model
    handles = [
        visual.register_forward_pre_hook(
            lambda m, args, kwargs: patches.append(
                len(args[0] if args else kwargs["hidden_states"])
            ),
            with_kwargs=True,
        ),
        trunk.register_forward_pre_hook(
            lambda m, args, kwargs: tokens.append(kwargs["inputs_embeds"].shape[1]),
            with_kwargs=True,
        ),
    ]
    learn(made, algorithm, groups)
    for handle in handles:
        handle.remove()
    fed = sum(len(r.ids) - 1 for g in groups for r in g.responses)
    # Both variants show one picture: where they run together it is encoded once.
    images = [m for g in groups for m in g.prompt.media][: 1 if budget > 100 else 2]
    assert sum(patches) == sum(len(m.tensors["pixel_values"]) for m in images)
    assert sum(tokens) == sum(len(g.prompt.ids) for g in groups) + fed


@pytest.mark.parametrize(
    "section",
    [
        {"name": "grpo", "reducer": "token-mean", "updates": {"passes": 2}},
        {"name": "grpo", "kl_coefficient": 0.1},
        {"name": "gspo", "updates": {"mini_batches": 1}},
        {"name": "gvpo"},
        {"name": "dpo"},
        {"name": "share_grpo"},
        {"name": "rloo"},
    ],
    ids=str,
)
def test_packing_never_moves_the_gradient(
    section: dict[str, Any], policy: Policy, groups: list[Group]
) -> None:
    algorithm = compose(section)
    large, tiny = (learner(policy, algorithm, budget) for budget in (10_000, 1))
    (whole, *_), all_stats = learn(large, algorithm, groups)
    (small, *_), few_stats = learn(tiny, algorithm, groups)
    assert whole.norm() > 0
    assert (whole - small).norm() < 1e-3 * whole.norm()
    assert few_stats.loss == pytest.approx(all_stats.loss, abs=1e-4)
    assert few_stats.tokens == all_stats.tokens


def test_old_logprobs_of_shared_pairs_are_those_before_the_first_update(
    policy: Policy, groups: list[Group]
) -> None:
    """Nothing moves here, so every computed ratio is 1, and a second pass equals the first."""
    once = compose({"name": "share_grpo"})
    twice = compose({"name": "share_grpo", "updates": {"passes": 2}})
    fresh = [
        replace(g, responses=tuple(replace(r, logprobs=r.logprobs * np.nan) for r in g.responses))
        for g in groups
    ]
    (single,), _ = learn(learner(policy, once, 10_000), once, fresh)
    (first, second), stats = learn(learner(policy, twice, 10_000), twice, fresh)
    assert (first - single).norm() < 1e-3 * single.norm()
    assert (second - single).norm() < 1e-3 * single.norm()
    assert stats.clip_share == 0
    _, moved = learn(learner(policy, twice, 10_000, rate=1.0), twice, fresh)
    assert moved.clip_share > 0


def test_passes_without_a_token_are_skipped(policy: Policy, groups: list[Group]) -> None:
    algorithm = compose({"name": "ar_lopti", "threshold": 0.9, "kl_coefficient": 0})
    steps, stats = learn(learner(policy, algorithm, 10_000), algorithm, groups)
    assert len(steps) == stats.updates == 1  # every sampled probability is below 0.9


def test_a_loss_that_is_not_finite_is_skipped_where_updates_may_be(
    policy: Policy, groups: list[Group]
) -> None:
    """Of two mini-batches one has an advantage that is no number: one update is made."""
    algorithm = compose({"name": "grpo", "updates": {"mini_batches": 2}})
    samples = list(algorithm.train_samples(groups, context()))
    broken = samples[0].advantages.copy()
    broken[0] = np.nan
    samples[0] = replace(samples[0], advantages=broken)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}

    def stats(skip_above: float | None) -> UpdateStats:
        config = OptimizerConfig(learning_rate=1e-5, skip_above=skip_above)
        backend = LocalBackend(policy.model, config, total_updates=2)
        made = Learner(policy, algorithm, backend, temperature=1.0, tokens_per_micro_batch=10_000)
        return made.update(samples, 0.0)

    try:
        with pytest.raises(TrainingError, match="the loss is not finite"):
            stats(None)
        assert all(torch.equal(p, before[name]) for name, p in policy.model.named_parameters())
        found = stats(1e9)
        assert (found.updates, found.skipped) == (2, 1)
        assert np.isfinite([found.loss, found.grad_norm]).all()
        assert all(p.isfinite().all() for p in policy.model.parameters())
    finally:
        policy.model.load_state_dict(before, strict=False)
