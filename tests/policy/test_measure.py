"""What algorithms see of the policy equals what the full logits of a plain forward say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrl.algorithms.compose import compose
from mmrl.config import CriticConfig
from mmrl.policy import logprobs
from mmrl.policy.attention import active_layout
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.stage import Context
from mmrl.train import measure
from mmrl.train.critic import Critic, explained_variance
from mmrl.train.learner import Learner
from mmrl.train.measure import (
    certainty,
    entropy,
    head_gradient_norms,
    indecision,
    measured,
    token_offsets,
)
from mmrl.types import Extra, Group, Response, Sample, Score, TrainSample
from tests.algorithms.cases import context
from tests.families.after_head import CHANGES, change_logits, learn_after_head
from tests.train.test_learner import Gradients

TEMPERATURE = 1.3
LENGTHS = (5, 1, 0, 3)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "CHUNK_TOKENS", 2)
    monkeypatch.setattr(logprobs, "CHUNK_TOKENS", 2)


@pytest.fixture
def samples(encoder: Encoder, ask: Callable[..., Sample]) -> list[TrainSample]:
    """Two prompts with an image each, four responses of random tokens, one of them empty."""
    rng = np.random.default_rng(3)
    made = []
    for index, text in enumerate(("how many?", "which of them?")):
        prompt = encoder.prompt(ask((28, 28, index), text))
        for length in LENGTHS[2 * index : 2 * index + 2]:
            response = Response(rng.integers(100, 400, length), np.zeros(length), "", "stop")
            mask = np.ones(length, dtype=bool)
            made.append(TrainSample(prompt, response, np.ones(length), mask, group=index))
    return made


def logits_of(policy: Policy, sample: TrainSample) -> Tensor:
    """Logits [T, V] at the sampling temperature, banned ids at minus infinity."""
    layout = lay_out([SharedRow(sample.prompt, (sample.response.ids,))], policy.device)
    with active_layout(layout):
        logits = policy.head(policy.response_hidden(layout, [sample.prompt])) / TEMPERATURE
    return logits.index_fill(-1, policy.banned, float("-inf"))


def test_entropy_and_certainty_are_those_of_the_full_logits(
    policy: Policy, samples: list[TrainSample]
) -> None:
    measures = {
        "h": entropy(policy, TEMPERATURE),
        "c": certainty(policy, TEMPERATURE),
        "d": indecision(policy, TEMPERATURE),
    }
    for budget in (1, 10_000):
        found = measured(policy, samples, budget, measures)
        for i, sample in enumerate(samples):
            assert len(found["h"][i]) == len(sample.response.ids)
            if not len(sample.response.ids):
                continue
            chances = logits_of(policy, sample).detach().double().softmax(-1).numpy()
            kept = np.delete(chances, policy.banned.numpy(), axis=1)
            expected = -(kept * np.log(kept)).sum(1)
            assert found["h"][i] == pytest.approx(expected, abs=1e-4)
            # KL(uniform || policy) + log V over what can be sampled
            size = kept.shape[1]
            kl = (np.log(1 / size) - np.log(kept)).mean(1)
            assert found["c"][i] == pytest.approx(kl + np.log(size), abs=1e-4)
            assert (found["h"][i] > 0).all()
            largest = np.sort(kept, axis=1)
            assert found["d"][i] == pytest.approx(1 - largest[:, -1] + largest[:, -2], abs=1e-5)


@pytest.mark.parametrize("change", CHANGES)
def test_gradient_norms_are_those_of_autograd(
    change: str, policy: Policy, samples: list[TrainSample]
) -> None:
    """Also where a cap flattens slopes or a scale steepens them, after the head."""
    change_logits(learn_after_head(policy.model), CHANGES[change])
    weight = policy.model.get_output_embeddings().weight
    found = head_gradient_norms(policy, samples, 10_000, TEMPERATURE)
    for sample, norm in zip(samples, found, strict=True):
        if not len(sample.response.ids):
            assert norm == 0
            continue
        layout = lay_out([SharedRow(sample.prompt, (sample.response.ids,))], policy.device)
        with active_layout(layout), torch.no_grad():
            hidden = policy.response_hidden(layout, [sample.prompt])
        logits = CHANGES[change](policy.model, (hidden @ weight.T)[None])[0] / TEMPERATURE
        log_all = logits.index_fill(-1, policy.banned, float("-inf")).log_softmax(-1)
        chosen = log_all.gather(-1, torch.from_numpy(sample.response.ids)[:, None]).sum()
        (slope,) = torch.autograd.grad(chosen, weight)
        assert norm == pytest.approx(float(slope.norm()), rel=1e-3)


def learner(policy: Policy, name: Any, critic: Critic | None = None) -> Learner:
    backend = Gradients(policy)
    return Learner(
        policy,
        compose(name if isinstance(name, dict) else {"name": name}),
        backend,
        temperature=TEMPERATURE,
        tokens_per_micro_batch=10_000,
        critic=critic,
    )


@pytest.mark.parametrize(
    ("name", "need"),
    [
        ("egsw", "entropy"),
        ("intuitor", "self_certainty"),
        ({"name": "grpo", "shape": ["doubt_budget"]}, "indecision"),
        ("gvm_probe", "gradient_norms"),
    ],
)
def test_groups_carry_what_the_algorithm_needs(
    name: Any, need: str, policy: Policy, samples: list[TrainSample]
) -> None:
    groups = [
        Group(pair[0].prompt, tuple(s.response for s in pair), (Score({}, None, reward=1.0),) * 2)
        for pair in (samples[:2], samples[2:])
    ]
    seen = learner(policy, name).observe(groups)
    values = [value for group in seen for value in getattr(group.extra, need)]
    direct = {
        "entropy": lambda: measured(policy, samples, 99, {"x": entropy(policy, TEMPERATURE)})["x"],
        "self_certainty": lambda: measured(
            policy, samples, 99, {"x": certainty(policy, TEMPERATURE)}
        )["x"],
        "indecision": lambda: measured(policy, samples, 99, {"x": indecision(policy, TEMPERATURE)})[
            "x"
        ],
        "gradient_norms": lambda: head_gradient_norms(policy, samples, 99, TEMPERATURE),
    }[need]()
    for value, expected in zip(values, direct, strict=True):
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert getattr(learner(policy, "grpo").observe(groups)[0].extra, need) is None


def with_returns(samples: list[TrainSample]) -> list[TrainSample]:
    """Every token of response i will earn i + 1; the last response is unscorable."""
    made = [
        replace(s, returns=np.full(len(s.mask), i + 1.0), values=np.zeros(len(s.mask)))
        for i, s in enumerate(samples[:3])
    ]
    return [*made, samples[3]]


@pytest.mark.parametrize("trunk", ["own", "shared"])
def test_a_critic_starts_at_zero_and_learns_returns(
    trunk: str, policy: Policy, samples: list[TrainSample]
) -> None:
    start = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    config = CriticConfig(trunk=trunk, learning_rate=1e-2, clip=None)  # type: ignore[arg-type]
    critic = Critic(policy, config, 10_000)
    targets = with_returns(samples)
    assert all((values == 0).all() for values in critic.values(samples))
    first = critic.update(targets)
    # five tokens of return 1, one of return 2, an empty response: half the mean square
    assert first == pytest.approx((5 * 1 + 1 * 4) / 6 / 2)
    for _ in range(60):
        last = critic.update(targets)
    assert first is not None and last is not None and last < 0.1 * first
    now = dict(policy.model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in start.items())
    assert all(p.grad is None for p in now.values())


def test_a_critic_does_not_see_the_micro_batches(
    policy: Policy, samples: list[TrainSample]
) -> None:
    critics = [Critic(policy, CriticConfig(learning_rate=1e-3), budget) for budget in (1, 10_000)]
    for _ in range(3):
        losses = [critic.update(with_returns(samples)) for critic in critics]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_critic_goes_on_from_its_state(policy: Policy, samples: list[TrainSample]) -> None:
    config = CriticConfig(learning_rate=1e-2)
    one, other = Critic(policy, config, 10_000), Critic(policy, config, 10_000)
    targets = with_returns(samples)
    one.update(targets)
    tensors, data = one.state()
    other.load_state({name: value.clone() for name, value in tensors.items()}, data)
    one.update(targets)
    other.update(targets)
    assert all(
        (a == b).all() for a, b in zip(one.values(samples), other.values(samples), strict=True)
    )
    assert any(values.any() for values in one.values(samples))


def test_the_clip_counts_from_the_old_values(policy: Policy, samples: list[TrainSample]) -> None:
    critic = Critic(policy, CriticConfig(trunk="shared", clip=0.5), 10_000)
    tensors, data = critic.state()
    critic.load_state({**tensors, "weight.head.bias": torch.tensor([0.7])}, data)
    loss = critic.update(with_returns(samples)[:1])
    # old value 0, return 1: the worse of (0.7 - 1)^2 and (0.5 - 1)^2, halved
    assert loss == pytest.approx(0.125)


def test_ppo_trains_policy_and_critic_on_its_own_numbers(
    policy: Policy, samples: list[TrainSample]
) -> None:
    critic = Critic(policy, CriticConfig(learning_rate=1e-2, clip=None), 10_000)
    made = learner(policy, "ppo", critic)
    algorithm = compose({"name": "ppo", "updates": {"mini_batches": 1}})
    first = samples[0]
    group = Group(first.prompt, (first.response,), (Score({}, None, reward=1.0),))
    (seen,) = made.observe([group])
    assert np.array_equal(seen.extra.values[0], np.zeros(5))
    (sample,) = algorithm.train_samples([seen], Context(1, 1, 1, np.random.default_rng(0), {}))
    # gamma 1, lambda 0.95, values 0: what reaches token t is 0.95 ^ (4 - t)
    assert sample.returns == pytest.approx(0.95 ** np.arange(4.0, -1, -1))
    stats = made.update([sample], 0.0)
    assert stats.value_loss == pytest.approx(np.mean(sample.returns**2) / 2)
    assert stats.value_explained == pytest.approx(0.0)


def test_explained_variance() -> None:
    def sample(values: list[float], returns: list[float]) -> TrainSample:
        size = np.zeros(len(values))
        return TrainSample(
            None,  # type: ignore[arg-type]
            Response(size.astype(np.int64), size, "", "stop"),
            size,
            size.astype(bool),
            returns=np.array(returns),
            values=np.array(values),
        )

    assert explained_variance([sample([0, 2], [0, 2]), sample([4], [4])]) == 1.0
    # var(returns) = 1, var(returns - values) = var([0, 1]) = 1/4
    assert explained_variance([sample([0, 1], [0, 2])]) == pytest.approx(0.75)
    assert explained_variance([sample([1, 2], [3, 3])]) == 0.0


def test_unscorable_responses_teach_the_critic_nothing(samples: list[TrainSample]) -> None:
    pair = samples[:2]
    scores = (Score({}, None, reward=1.0), Score({}, None, reward=None))
    values = [np.zeros(len(s.mask)) for s in pair]
    group = Group(pair[0].prompt, tuple(s.response for s in pair), scores, Extra(values=values))
    known, unknown = compose({"name": "ppo", "group_size": 2}).train_samples([group], context())
    assert known.returns is not None and unknown.returns is None


def test_offsets_count_characters_not_bytes(policy: Policy) -> None:
    """A character of several tokens counts once, and each of them stands at its start."""
    tokenizer = policy.processor.tokenizer
    for text in ("<answer>12</answer>", "a\u4e2d\U0001f600b", "caf\u00e9 "):
        ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"])
        starts = token_offsets(tokenizer, ids)
        assert len(starts) == len(ids) + 1
        assert starts[0] == 0 and starts[-1] == len(text) and (np.diff(starts) >= 0).all()
        for i, token in enumerate(ids):
            piece = tokenizer.decode([token])
            if "\ufffd" not in piece:
                assert text[starts[i] : starts[i] + len(piece)] == piece
    assert token_offsets(tokenizer, np.zeros(0, dtype=np.int64)).tolist() == [0]
