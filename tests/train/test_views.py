"""What is measured of answers for comparisons, extra updates of FixPO, steps in two of EGPO."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrl.algorithms.compose import compose
from mmrl.algorithms.stages.credit import pair
from mmrl.algorithms.stages.policy_view import Aided, Collision, Implied, Mismatched, seen
from mmrl.backend.local import LocalBackend
from mmrl.config import OptimizerConfig, RunConfig
from mmrl.policy.appending import continued
from mmrl.policy.encoder import Encoder
from mmrl.policy.head import lm_head
from mmrl.policy.policy import Policy
from mmrl.train.learner import Learner
from mmrl.train.measure import collision
from mmrl.train.run import train
from mmrl.types import Group, Response, Sample, Score
from mmrl.validation import validate
from tests.algorithms.cases import context
from tests.runs import make_digits, run_config
from tests.train.test_learner import Gradients

LENGTHS = ((5, 2), (3, 7), (1, 4))


@pytest.fixture
def groups(encoder: Encoder, ask: Callable[..., Sample]) -> list[Group]:
    rng = np.random.default_rng(5)
    made = []
    for index, lengths in enumerate(LENGTHS):
        prompt = encoder.prompt(ask((28, 28, index), f"how many? {index}", id=str(index)))
        responses = tuple(
            Response(rng.integers(100, 400, n), -3.0 - rng.random(n), "", "stop") for n in lengths
        )
        scores = tuple(Score({}, None, reward=r) for r in (1.0, 0.0))
        made.append(Group(prompt, responses, scores))
    return made


def shaken(policy: Policy, by: float = 0.02) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)


def learner(policy: Policy, name: str, **options: object) -> Learner:
    """A learner whose reference is the policy before it was shaken."""
    algorithm = compose({"name": name, **options})
    made = Learner(
        policy, algorithm, Gradients(policy), temperature=1.0, tokens_per_micro_batch=100
    )
    shaken(policy)
    return made


def totals(learner: Learner, group: Group, prompt: object = None) -> np.ndarray:
    """log(policy / reference) of a group's answers under a prompt, by the learner's own scores."""
    samples = pair(group, np.zeros(len(group.responses)), 0, prompt)
    own, other = learner.own(samples), learner._by_reference(samples)
    return np.array([(a - b).sum() for a, b in zip(own, other, strict=True)])


def test_implied_and_mismatched_are_log_ratios(policy: Policy, groups: list[Group]) -> None:
    made = learner(policy, "gr_dpo")
    for group in made.observe(groups):
        np.testing.assert_allclose(
            seen(group, Implied, "implied").values, totals(made, group), atol=1e-4
        )
        assert np.abs(totals(made, group)).max() > 1e-2
    kto = learner(policy, "kto")
    observed = kto.observe(groups)
    for i, group in enumerate(observed):
        other = groups[(i + 1) % len(groups)]
        expected = totals(kto, other, group.prompt)[0]
        assert seen(group, Mismatched, "mismatched").value == pytest.approx(expected, abs=1e-4)
    samples = kto._algorithm.train_samples(observed, context())
    points = {s.second[0] for s in samples}
    mean = np.mean([seen(g, Mismatched, "mismatched").value for g in observed])
    assert points == {max(mean, 0.0)}


def test_aided_is_the_log_prob_behind_the_aid(policy: Policy, groups: list[Group]) -> None:
    made = learner(policy, "sr_dpo", aid="A good answer: ")
    tail = policy.processor.tokenizer("A good answer: ", add_special_tokens=False)["input_ids"]
    for group in made.observe(groups):
        prompt = continued(group.prompt, np.array(tail))
        assert len(prompt.ids) == len(group.prompt.ids) + len(tail)
        scores = made.own(pair(group, np.zeros(2), 0, prompt))
        found = seen(group, Aided, "aided").values
        np.testing.assert_allclose(found, [s.sum() for s in scores], atol=1e-4)
        plain = made.own(pair(group, np.zeros(2), 0))
        assert np.abs(found - [s.sum() for s in plain]).max() > 1e-3


def test_collision_is_the_chance_of_the_same_token_twice(
    policy: Policy, groups: list[Group]
) -> None:
    """log sum p^2 of logits, beside torch's own softmax; placeholders of media have no part."""
    made = learner(policy, "wpo")
    found = seen(made.observe(groups)[0], Collision, "collision").values
    assert [len(v) for v in found] == list(LENGTHS[0]) and all((v < 0).all() for v in found)
    likely = made.own(pair(groups[0], np.zeros(2), 0))
    for values, logs in zip(found, likely, strict=True):
        assert (values >= 2 * logs - 1e-6).all()  # one term is at most their sum
    hidden = torch.randn(4, lm_head(policy.model).get_parameter("weight").shape[-1])
    measure = collision(policy, 0.7)
    logits = policy.head(hidden).float() / 0.7
    logits[:, policy.banned] = float("-inf")
    expected = logits.softmax(-1).square().sum(-1).log()
    with torch.no_grad():
        got = measure(hidden, torch.zeros(4, dtype=torch.long))
    np.testing.assert_allclose(got.numpy(), expected.detach().numpy(), atol=1e-5)


def test_fixpo_updates_until_every_token_is_near(policy: Policy, groups: list[Group]) -> None:
    """A rate that throws tokens far away is brought back, and what is reached is told."""
    section = {"name": "fixpo", "trust": 1.0, "fixes": 30, "passes": 1, "first": 5.0}
    algorithm = compose(section)
    backend = LocalBackend(policy.model, OptimizerConfig(learning_rate=1e-4), 10)
    made = Learner(policy, algorithm, backend, temperature=1.0, tokens_per_micro_batch=100)
    own = made.own([s for i, g in enumerate(groups) for s in pair(g, np.zeros(2), i)])
    left = iter(own)
    real = [
        replace(g, responses=tuple(replace(r, logprobs=next(left)) for r in g.responses))
        for g in groups
    ]
    state = context()
    stats = made.update(algorithm.train_samples(real, state), 0.0)
    assert stats.fixes is not None and stats.fixes > 0
    assert stats.divergence is not None and stats.divergence <= 1.0
    assert backend.updates == 1 + stats.fixes
    algorithm.learnt(stats.divergence, state)
    assert state.state["kl_weight"] == pytest.approx(5.0 * np.exp(0.1 * (3 * stats.divergence - 1)))


def test_extragradient_goes_back_to_weights_and_moments(
    policy: Policy, groups: list[Group]
) -> None:
    """Two steps are one from the start: the same as if the first had never been made."""
    algorithm = compose({"name": "egpo"})
    samples = [
        replace(s, ref_logprobs=np.full(len(s.mask), -3.0))
        for s in algorithm.train_samples(groups, context())
    ]

    def start(which: Policy) -> Learner:
        backend = LocalBackend(which.model, OptimizerConfig(learning_rate=1e-3), 10)
        return Learner(which, algorithm, backend, temperature=1.0, tokens_per_micro_batch=100)

    weights = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    made = start(policy)
    made.update(samples, 0.0, step=1)
    ahead = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    assert any(not torch.equal(ahead[n], weights[n]) for n in weights)
    made.update(samples, 0.0, step=2)
    # The same samples, so the same step from the same place.
    assert all(torch.equal(p, ahead[n]) for n, p in policy.model.named_parameters())
    made.update(samples, 0.0, step=3)
    assert any(not torch.equal(p, ahead[n]) for n, p in policy.model.named_parameters())
    assert made.extrapolation is not None and made.extrapolation.state()[0]


def test_a_run_that_stops_ahead_resumes_the_same(tmp_path: Path) -> None:
    digits = make_digits(tmp_path / "digits", train=6, test=2)
    ends = []
    for name, steps in (("whole", 4), ("part", 3)):
        config = run_config(tmp_path / name, digits, trainer={"steps": 4, "prompts_per_step": 2})
        config["algorithm"] = {"name": "egpo", "group_size": 4}
        config["data"].pop("eval_path")
        config["trainer"] |= {"checkpoint_every": 1, "keep_checkpoints": 9}
        made = validate(RunConfig, config, "test")
        train(made)
        if steps < 4:
            shutil.rmtree(tmp_path / name / "checkpoints" / "step_4")
            train(made, resume=True)
        ends.append(tmp_path / name / "checkpoints" / "step_4")
    one, other = ((end / "model.safetensors").read_bytes() for end in ends)
    assert one == other
