"""What the policy is held to: several models by weight, other budgets, and one that follows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmrl.algorithms.compose import compose
from mmrl.algorithms.opd import less_others
from mmrl.config import RunConfig
from mmrl.errors import ConfigError
from mmrl.model_config import ModelConfig
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy, load_policy
from mmrl.runlog.journal import Journal
from mmrl.train.learner import Learner
from mmrl.train.reference import ReferencePolicy, Teacher, average_weights
from mmrl.train.reference_config import reference_of
from mmrl.train.run import train
from mmrl.types import Group, Response, Sample, Score
from mmrl.validation import validate
from tests.algorithms.cases import context, evaluate
from tests.conftest import TINY
from tests.runs import make_digits, run_config
from tests.train.test_learner import Gradients

CPU = torch.device("cpu")


def noisy(policy: Policy, seed: int, size: float = 0.02) -> Policy:
    """A frozen copy with other weights."""
    made = policy.frozen_copy()
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.model.parameters():
        parameter += size * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return made


@pytest.fixture
def groups(encoder: Encoder, ask: Callable[..., Sample]) -> list[Group]:
    """Two questions with a picture each; ragged responses, sampled log-probs made up."""
    rng = np.random.default_rng(3)
    made = []
    for number, lengths in enumerate(((4, 9), (1, 6))):
        prompt = encoder.prompt(ask((84, 56, number), "how many?", id=str(number)))
        responses = tuple(
            Response(rng.integers(100, 400, n), -3.0 - rng.random(n), "", "stop") for n in lengths
        )
        scores = (Score({}, None, reward=1.0), Score({}, None, reward=0.0))
        made.append(Group(prompt, responses, scores))
    return made


def learner(policy: Policy, reference: ReferencePolicy | None, **section: Any) -> Learner:
    return Learner(
        policy,
        compose({"name": "opd", **section}),
        Gradients(policy),
        temperature=1.0,
        tokens_per_micro_batch=10_000,
        reference=reference,
    )


def referenced(made: Learner, groups: list[Group]) -> list[np.ndarray]:
    found = [values for g in made.observe(groups) for values in g.extra.reference or ()]
    assert len(found) == 4
    return found


def test_several_teachers_are_the_weighted_mean_of_their_logprobs(
    policy: Policy, groups: list[Group]
) -> None:
    one, two = noisy(policy, 1), noisy(policy, 2)
    alone = [
        referenced(learner(policy, ReferencePolicy([Teacher(each)])), groups) for each in (one, two)
    ]
    both = ReferencePolicy([Teacher(one, 3.0), Teacher(two, 1.0)])
    for a, b, mean in zip(*alone, referenced(learner(policy, both), groups), strict=True):
        assert np.abs(a - b).max() > 1e-3
        np.testing.assert_allclose(mean, 0.75 * a + 0.25 * b, atol=1e-6)


def test_a_teacher_sees_pictures_within_its_own_budget(policy: Policy, groups: list[Group]) -> None:
    """What it says is what it says alone, of prompts that were made for it."""
    own = load_policy(ModelConfig(path=TINY, max_pixels=28 * 28), CPU)
    small = Encoder(own.family)
    teacher = ReferencePolicy([Teacher(own, encoder=small)])
    found = referenced(learner(policy, teacher), groups)
    shown = [replace(group, prompt=small.prompt(group.prompt.sample)) for group in groups]
    assert all(len(s.prompt.ids) < len(g.prompt.ids) for s, g in zip(shown, groups, strict=True))
    expected = referenced(learner(own, ReferencePolicy([Teacher(own)])), shown)
    large = referenced(learner(policy, ReferencePolicy([Teacher(own)])), groups)
    for a, b, other in zip(found, expected, large, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert np.abs(a - other).max() > 1e-4
    teacher.close()


@pytest.mark.parametrize(
    ("frozen", "other", "again"),
    [(True, 0.0, False), (True, 0.02, True), (False, 0.0, True)],
    ids=["frozen", "another tower", "learning"],
)
def test_a_frozen_tower_sees_for_the_reference_too(
    policy: Policy, groups: list[Group], frozen: bool, other: float, again: bool
) -> None:
    """What the reference says is what it says with its own tower."""
    behind = [*policy.family.tower_parameters(), *policy.family.projector_parameters()]
    for parameter in behind:
        parameter.requires_grad_(not frozen)
    copied = noisy(policy, 1)
    for own, theirs in zip(
        behind,
        [*copied.family.tower_parameters(), *copied.family.projector_parameters()],
        strict=True,
    ):
        theirs.copy_(own + other)
    alone = referenced(learner(policy, ReferencePolicy([Teacher(copied)])), groups)
    copied.store.forget()
    policy.store.forget()
    seen: list[int] = []
    for made in (policy, copied):
        (tower, *_) = made.family.towers()
        tower.register_forward_pre_hook(lambda *_: seen.append(1))
    reference = ReferencePolicy([Teacher(copied)]).with_features_of(policy)
    with torch.no_grad():
        for group in groups:
            policy.store.features(group.prompt.media)
    first = len(seen)
    found = referenced(learner(policy, reference), groups)
    for a, b in zip(found, alone, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (len(seen) > first) == again
    if not frozen:  # the policy's tower learns, and the reference's stays
        with torch.no_grad():
            for own in behind:
                own += 0.1
        for a, b in zip(referenced(learner(policy, reference), groups), alone, strict=True):
            np.testing.assert_array_equal(a, b)


def moved(policy: Policy, by: float) -> None:
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += by


def test_a_moving_average_is_that_of_float64(policy: Policy) -> None:
    name, first = next(iter(policy.model.named_parameters()))
    reference = ReferencePolicy([Teacher(policy.frozen_copy())], average=0.9)
    expected = first.detach().double().clone()
    for step in (1, 2, 3):
        moved(policy, 0.25)
        reference.follow(policy, step)
        expected = 0.9 * expected + 0.1 * first.detach().double()
    held = dict(reference.only().model.named_parameters())[name]
    np.testing.assert_allclose(held.double().numpy(), expected.numpy(), atol=1e-6)
    assert float((held - first).detach().abs().min()) > 0.1  # and the policy is elsewhere


def test_small_moves_of_an_average_are_not_lost_in_half_precision() -> None:
    policy = load_policy(ModelConfig(path=TINY, dtype="bfloat16"), CPU)
    reference = ReferencePolicy([Teacher(policy.frozen_copy())], average=0.999)
    name, first = next((n, p) for n, p in policy.model.named_parameters() if p.ndim == 1)
    start = first.detach().double().clone()
    moved(policy, 0.5)
    for step in range(200):
        reference.follow(policy, step)
    held = dict(reference.only().model.named_parameters())[name].double()
    expected = start + (1 - 0.999**200) * (first.detach().double() - start)
    np.testing.assert_allclose(held.numpy(), expected.numpy(), rtol=8e-3, atol=1e-3)


def test_a_periodic_reference_is_the_policy_of_every_so_many_steps(policy: Policy) -> None:
    reference = ReferencePolicy([Teacher(policy.frozen_copy())], every=2)
    first = next(iter(policy.model.parameters()))
    held = next(iter(reference.only().model.parameters()))
    seen = []
    for step in (1, 2, 3, 4):
        moved(policy, 0.25)
        reference.follow(policy, step)
        seen.append(float((first - held).detach().abs().max()))
    assert seen == pytest.approx([0.25, 0.0, 0.25, 0.0], abs=1e-6)


def test_features_of_weights_that_are_no_more_are_forgotten(
    policy: Policy, groups: list[Group]
) -> None:
    reference = ReferencePolicy([Teacher(policy.frozen_copy())], every=1)
    made = learner(policy, reference)
    referenced(made, groups)
    moved(policy, 0.01)
    reference.follow(policy, 1)
    fresh = learner(policy, ReferencePolicy([Teacher(policy.frozen_copy())]))
    for a, b in zip(referenced(made, groups), referenced(fresh, groups), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_mean_of_checkpoints(policy: Policy) -> None:
    others = [noisy(policy, seed) for seed in (1, 2)]
    first = policy.frozen_copy()
    name = next(n for n, _ in first.model.named_parameters())
    each = [dict(p.model.named_parameters())[name].double() for p in (first, *others)]
    expected = torch.stack(each).mean(0)
    average_weights(first, others)
    held = dict(first.model.named_parameters())[name].double()
    np.testing.assert_allclose(held.numpy(), expected.numpy(), atol=1e-7)


def test_distillation_by_hand() -> None:
    """Advantages are teacher minus student, later ones by gamma, and rewards by their weight."""
    rows = [
        {"reward": 1.0, "logprobs": [-1.0, -2.0], "ref_logprobs": [-0.5, -2.5]},
        {"reward": 0.0, "logprobs": [-0.3], "ref_logprobs": [-0.1]},
    ]
    found = evaluate("opd", [rows])["advantages"][0]
    np.testing.assert_allclose(found[0], [0.5, -0.5])
    np.testing.assert_allclose(found[1], [0.2])
    found = evaluate("opd", [rows], gamma=0.5, kl_coefficient=2.0)["advantages"][0]
    np.testing.assert_allclose(found[0], [2 * (0.5 - 0.25), -1.0])
    found = evaluate("opd", [rows], rewards=0.3)["advantages"][0]
    relative = 0.5 / (np.std([1.0, 0.0], ddof=1) + 1e-6)
    np.testing.assert_allclose(found[0], [0.5 + 0.3 * relative, -0.5 + 0.3 * relative])
    np.testing.assert_allclose(found[1], [0.2 - 0.3 * relative])


def test_the_baseline_is_the_mean_of_the_others_at_the_same_place() -> None:
    values = [np.array([1.0, 2.0, 3.0]), np.array([3.0, 6.0]), np.array([5.0])]
    written = [np.ones(3, bool), np.array([True, False]), np.ones(1, bool)]
    found = less_others(values, written)
    np.testing.assert_allclose(found[0], [1 - (3 + 5) / 2, 2.0, 3.0])  # alone behind the first
    np.testing.assert_allclose(found[1], [3 - (1 + 5) / 2, 0.0])
    np.testing.assert_allclose(found[2], [5 - (1 + 3) / 2])
    (only,) = less_others([np.array([1.0, 2.0])], [np.ones(2, bool)])
    np.testing.assert_allclose(only, [1.0, 2.0])
    rows = [
        {"reward": 0.0, "logprobs": [-1.0, -2.0], "ref_logprobs": [-0.5, -2.5]},
        {"reward": 0.0, "logprobs": [-0.3], "ref_logprobs": [-0.1]},
    ]
    advantages = evaluate("opd", [rows], baseline=True)["advantages"][0]
    np.testing.assert_allclose(advantages[0], [0.5 - 0.2, -0.5])
    np.testing.assert_allclose(advantages[1], [0.2 - 0.5])


def test_the_gradient_is_that_of_the_reverse_kl(policy: Policy, groups: list[Group]) -> None:
    """In expectation: over every next token of one state, weighted by its probability."""
    reference = noisy(policy, 5)
    prompt = groups[0].prompt
    made = learner(policy, ReferencePolicy([Teacher(reference)]))
    vocabulary = policy.model.get_input_embeddings().weight.shape[0]
    allowed = [i for i in range(vocabulary) if i not in policy.family.banned_ids]
    one = [Response(np.array([i]), np.zeros(1), "", "stop") for i in allowed]
    asked = [
        replace(groups[0], responses=tuple(one), scores=(Score({}, None, reward=0.0),) * len(one))
    ]
    samples = [s for g in asked for s in compose({"name": "grpo"}).credit([g], context())]
    assert all(s.prompt is prompt for s in samples)
    with torch.no_grad():
        student = np.concatenate(made.own(samples))
        teacher = np.concatenate(made.score(samples, reference))
    assert np.exp(student).sum() == pytest.approx(1, abs=1e-4)
    # d KL / d logit_j = p_j ((log p_j - log q_j) - KL); the estimate's, by its advantages:
    kl = float((np.exp(student) * (student - teacher)).sum())
    exact = np.exp(student) * ((student - teacher) - kl)
    advantages = teacher - student
    weighted = np.exp(student) * advantages
    estimate = -(weighted - np.exp(student) * weighted.sum())
    np.testing.assert_allclose(estimate, exact, atol=1e-6)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("digits"), train=12, test=2)


def carry_out(config: dict[str, Any], **flags: bool) -> dict[str, Any]:
    return train(validate(RunConfig, config, "test"), **flags)


def small(folder: Path, digits: Path, **sections: Any) -> dict[str, Any]:
    config = run_config(folder, digits, **sections)
    del config["data"]["eval_path"]
    return config


@pytest.mark.parametrize("rule", [{"average": 0.5}, {"every": 2}], ids=str)
def test_a_run_with_a_reference_that_moves_resumes_bit_for_bit(
    rule: dict[str, Any], tmp_path: Path, digits: Path
) -> None:
    section = {
        "algorithm": {"name": "grpo", "group_size": 4, "kl_coefficient": 0.5},
        "optimizer": {"learning_rate": 1e-3},
    }
    trainer = {"steps": 4, "prompts_per_step": 2, "checkpoint_every": 3}
    whole = small(tmp_path / "whole", digits, **section, trainer=trainer)
    whole["reference"] = rule
    carry_out(whole)
    cut = {**whole, "run": str(tmp_path / "cut"), "trainer": {**whole["trainer"]}}
    carry_out(cut)
    # As if it had been killed after its third step.
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step_4")
    carry_out(cut, resume=True)
    for file in ("model.safetensors", "trainer/reference.safetensors"):
        a, b = (load_file(tmp_path / n / "checkpoints/step_4" / file) for n in ("whole", "cut"))
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a), file
    rows = list(Journal(tmp_path / "whole" / "metrics.jsonl").rows())
    assert rows[0]["train/kl"] == 0.0 and rows[1]["train/kl"] > 0


def test_runs_take_a_path_and_the_mean_of_two(tmp_path: Path, digits: Path) -> None:
    taught = {"algorithm": {"name": "opd", "group_size": 2}, "trainer": {"steps": 1}}
    first = small(tmp_path / "first", digits, **taught, optimizer={"learning_rate": 1e-2})
    first["algorithm"] = {"name": "grpo", "group_size": 4}
    carry_out(first)
    made = {}
    for name, reference in {
        "start": {},
        "path": {"path": str(tmp_path / "first")},
        "mean": {"mean_of": [str(tmp_path / "first"), TINY]},
        "teachers": {"teachers": [{"path": str(tmp_path / "first"), "max_pixels": 784}]},
    }.items():
        config = small(tmp_path / name, digits, **taught)
        config["reference"] = reference
        carry_out(config)
        rows = [
            r for g in Journal(tmp_path / name / "rollouts.jsonl").rows() for r in g["responses"]
        ]
        made[name] = [r["advantages"] for r in rows]
    assert all(a == 0 or abs(np.array(a)).max() < 1e-4 for a in made["start"])
    assert len({json.dumps(advantages) for advantages in made.values()}) == 4


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"path": "a", "mean_of": ["b", "c"]}, "path and mean_of both say what it is"),
        ({"teachers": [{"path": "a"}], "every": 3}, "teachers stay as they are"),
        ({"pth": "a"}, "did you mean 'path'"),
    ],
)
def test_what_does_not_go_together_is_told(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        reference_of(section)


def test_a_reference_that_nothing_compares_with_is_told(tmp_path: Path, digits: Path) -> None:
    config = small(tmp_path / "run", digits, trainer={"steps": 1})
    config["reference"] = {"average": 0.9}
    with pytest.raises(ConfigError, match="nothing is compared with it"):
        carry_out(config)
