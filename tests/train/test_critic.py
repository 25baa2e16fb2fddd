"""Critics: trained alone, kept over phases, loaded, frozen; and the policy that stays meanwhile."""

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
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmrl.algorithm import Updates
from mmrl.algorithms.compose import compose
from mmrl.backend.local import LocalBackend
from mmrl.config import CriticConfig, OptimizerConfig, RunConfig
from mmrl.errors import ConfigError, TrainingError, UserError
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy
from mmrl.runlog.journal import Journal
from mmrl.train.critic import Critic
from mmrl.train.learner import Learner
from mmrl.train.phases import phases_of
from mmrl.train.run import train
from mmrl.types import Response, Sample, TrainSample
from mmrl.validation import validate
from tests.families.cases import policy as family_policy
from tests.runs import make_digits, run_config

Tensors = dict[str, Tensor]


@pytest.fixture
def samples(encoder: Encoder, ask: Callable[..., Sample]) -> list[TrainSample]:
    """Two prompts, one answer each; every token of the first earns 1, of the second 0."""
    rng = np.random.default_rng(5)
    made = []
    for index, earned in enumerate((1.0, 0.0)):
        prompt = encoder.prompt(ask((28, 28, index), "how many?", id=str(index)))
        length = 4 + index
        response = Response(rng.integers(100, 400, length), np.full(length, -1.0), "", "stop")
        nothing = np.zeros(length)
        sample = TrainSample(prompt, response, np.ones(length), np.ones(length, bool), group=index)
        made.append(replace(sample, returns=nothing + earned, values=nothing))
    return made


def learner(policy: Policy, critic: Critic, **updates: Any) -> Learner:
    return Learner(
        policy,
        compose({"name": "vc_ppo", "updates": updates}),
        LocalBackend(policy.model, OptimizerConfig(learning_rate=1e-3), 9),
        temperature=1.0,
        tokens_per_micro_batch=10_000,
        critic=critic,
    )


def weights_of(policy: Policy) -> Tensors:
    return {name: value.clone() for name, value in policy.model.state_dict().items()}


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# --- alone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trunk", "rate", "parts"), [("own", 1e-3, 1), ("own", 1e-3, 2), ("shared", 1e-2, 1)]
)
def test_a_critic_learns_alone_and_the_policy_stays_bit_for_bit(
    trunk: Any, rate: float, parts: int, policy: Policy, samples: list[TrainSample]
) -> None:
    start = weights_of(policy)
    critic = Critic(policy, CriticConfig(trunk=trunk, learning_rate=rate), 10_000)
    made = learner(policy, critic, mini_batches=parts)
    losses, explained = [], []
    for _ in range(30):
        said = zip(samples, critic.values(samples), strict=True)
        stats = made.update_critic([replace(s, values=v) for s, v in said])
        assert (stats.updates, stats.tokens) == (0, 0)
        assert stats.value_loss is not None and stats.value_explained is not None
        losses.append(stats.value_loss)
        explained.append(stats.value_explained)
    assert same(weights_of(policy), start)
    assert all(p.grad is None for p in policy.model.parameters())
    # Four of nine tokens earn 1, the values are 0: half the mean square is 2 / 9.
    assert parts > 1 or losses[0] == pytest.approx(2 / 9)
    # The returns of either mini-batch are all the same: what is explained is seen over both.
    assert explained[0] == pytest.approx(0.0) and explained[-1] > 0.8
    assert losses[-1] < 0.2 * losses[0]
    # The same samples move the policy in a usual update.
    made.update(samples, 0.0)
    assert not same(weights_of(policy), start)


def test_how_long_a_critic_learns_alone() -> None:
    paper = compose({"name": "vapo"}).updates
    table = [
        # updates, steps of the phase, new critic, first steps for the critic alone
        (paper, 1000, True, 50),
        (paper, 60, True, 30),
        (paper, 1, True, 0),
        (paper, 1000, False, 0),
        (compose({"name": "vc_ppo"}).updates, 1000, True, 100),
        (compose({"name": "vc_ppo", "critic_steps": 7}).updates, 1000, True, 7),
        (compose({"name": "vc_ppo", "critic_steps": 7}).updates, 1000, False, 7),
        (compose({"name": "vc_ppo", "critic_steps": 7}).updates, 5, True, 5),
        (compose({"name": "vc_ppo", "critic_steps": 0}).updates, 1000, True, 0),
        (compose({"name": "ppo"}).updates, 1000, True, 0),
        (compose({"name": "ppo", "updates": {"critic_steps": 3}}).updates, 9, False, 3),
        (Updates(), 9, True, 0),
    ]
    for updates, steps, new, alone in table:
        assert updates.critic_alone(steps, new=new) == alone
    with pytest.raises(UserError, match="'grpo': it has no critic that could learn alone"):
        compose({"name": "grpo", "updates": {"critic_steps": 3}})


def test_vc_ppo_with_the_lambda_of_ppo_is_not_ppo() -> None:
    one, other = compose({"name": "vc_ppo", "critic_lam": 0.95}), compose({"name": "ppo"})
    assert one.credit == other.credit
    assert replace(one, name="ppo") != other
    assert replace(one, updates=other.updates, name="ppo") == other


# --- loaded, frozen ------------------------------------------------------------------------------


def taught(policy: Policy, samples: list[TrainSample], **options: Any) -> Critic:
    critic = Critic(policy, CriticConfig(learning_rate=1e-2, **options), 10_000)
    for _ in range(3):
        critic.update(samples)
    return critic


def test_a_critic_starts_as_another_and_not_with_its_moments(
    policy: Policy, samples: list[TrainSample]
) -> None:
    one = taught(policy, samples)
    tensors = {name: value.clone() for name, value in one.state()[0].items()}
    other = Critic(policy, CriticConfig(learning_rate=1e-2), 10_000)
    other.take(tensors)
    for a, b in zip(one.values(samples), other.values(samples), strict=True):
        assert (a == b).all() and a.any()
    mine, data = other.state()
    assert same(
        {n: t for n, t in tensors.items() if n.startswith("weight.")},
        {n: t for n, t in mine.items() if n.startswith("weight.")},
    )
    assert not any(n.startswith("optimizer.") for n in mine) and data["updates"] == 0
    other.update(samples)
    assert not same(other.state()[0], tensors)


@pytest.mark.parametrize("start", ["take", "load_state"])
def test_a_frozen_critic_says_what_it_knows_and_learns_nothing(
    start: str, policy: Policy, samples: list[TrainSample]
) -> None:
    known = taught(policy, samples)
    tensors, data = known.state()
    tensors = {name: value.clone() for name, value in tensors.items()}
    frozen = Critic(policy, CriticConfig(learning_rate=1e-2, frozen=True), 10_000)
    frozen.take(tensors) if start == "take" else frozen.load_state(tensors, data)
    values = frozen.values(samples)
    assert all((a == b).all() for a, b in zip(values, known.values(samples), strict=True))
    before = {name: value.clone() for name, value in frozen.state()[0].items()}
    seen = [replace(s, values=v) for s, v in zip(samples, values, strict=True)]
    made = learner(policy, frozen, mini_batches=1)
    stats = [made.update(seen, 0.0) for _ in range(3)]
    assert same(frozen.state()[0], before)
    assert same(before, {n: t for n, t in tensors.items() if n.startswith("weight.")})
    squares = [(v - s.returns) ** 2 for v, s in zip(values, samples, strict=True)]
    assert stats[0].value_loss == pytest.approx(np.concatenate(squares).mean() / 2)
    # It has no moments to hold, and its trunk is not the policy's that moved.
    assert all((a == b).all() for a, b in zip(values, frozen.values(samples), strict=True))


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"trunk": "shared"}, None, "has a weight 'trunk."),
        (
            {},
            "trunk.model.language_model.norm.weight",
            "it has no 'trunk.model.language_model.norm",
        ),
        ({}, "head.weight", r"its 'head.weight' is \[1\], here it is \[1, "),
    ],
)
def test_a_critic_of_another_kind_is_refused(
    options: dict[str, Any], change: str | None, message: str, policy: Policy
) -> None:
    tensors = dict(Critic(policy, CriticConfig(), 10_000).state()[0])
    if change == "head.weight":
        tensors["weight.head.weight"] = torch.zeros(1)  # would be spread over the whole row
    elif change is not None:
        del tensors[f"weight.{change}"]
    critic = Critic(policy, CriticConfig(**options), 10_000)
    with pytest.raises(UserError, match=message) as error:
        critic.take(tensors)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=message):
        critic.load_state(tensors, {"updates": 0})


def test_a_critic_whose_loss_is_not_finite_is_told_apart(
    policy: Policy, samples: list[TrainSample]
) -> None:
    critic = Critic(policy, CriticConfig(), 10_000)
    endless = [replace(samples[0], returns=np.full(4, np.inf))]
    with pytest.raises(UserError, match=r"lower critic.learning_rate"):
        critic.update(endless)


def test_a_head_inside_a_language_model_is_found() -> None:
    """Nemotron-H Omni names no head of its own."""
    made = family_policy("nemotron_h_omni")
    assert made.model.get_output_embeddings() is None
    tensors = dict(Critic(made, CriticConfig(trunk="shared"), 10_000).state()[0])
    width = made.model.config.get_text_config().hidden_size
    assert tensors["weight.head.weight"].shape == (1, width)


# --- in runs -------------------------------------------------------------------------------------

ALONE, STEPS = 3, 5
PPO = {
    "name": "vc_ppo",
    "group_size": 2,
    "critic_steps": 0,
    "updates": {"mini_batches": 2},
    # Tokens earn less the farther they are from the end, and answers the longer they are.
    "gamma": 0.9,
    "shape": [{"name": "soft_overlong", "longest": 8, "cache": 8}],
}
VALUES = {
    "name": "values",
    "algorithm": {**PPO, "critic_steps": 2},
    "trainer": {"steps": 2},
}
RL = {"name": "rl", "algorithm": PPO, "keep": ["state", "critic"], "trainer": {"steps": 2}}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("digits"), train=8, test=2)


def config(run: Path, digits: Path, *phases: dict[str, Any], **sections: Any) -> RunConfig:
    trainer = {
        "steps": STEPS,
        "prompts_per_step": 2,
        "checkpoint_every": 1,
        "keep_checkpoints": 9,
        **sections.pop("trainer", {}),
    }
    critic = {"learning_rate": 1e-3, **sections.pop("critic", {})}
    values = run_config(run, digits, trainer=trainer, optimizer={"learning_rate": 1e-3}, **sections)
    del values["data"]["eval_path"]
    return validate(RunConfig, {**values, "critic": critic, "phases": list(phases)}, "test")


def policy_at(run: Path, step: int) -> Tensors:
    return load_file(run / "checkpoints" / f"step_{step}" / "model.safetensors")


def critic_at(run: Path, step: int, *kinds: str) -> Tensors:
    file = run / "checkpoints" / f"step_{step}" / "trainer" / "critic.safetensors"
    return {n: t for n, t in load_file(file).items() if not kinds or n.startswith(kinds)}


def rows(run: Path) -> list[dict[str, Any]]:
    return list(Journal(run / "metrics.jsonl").rows())


def drop_after(run: Path, step: int, last: int) -> None:
    for later in range(step + 1, last + 1):
        shutil.rmtree(run / "checkpoints" / f"step_{later}")


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A run of five steps, in the first three of which the critic learns alone."""
    run = tmp_path_factory.mktemp("warmed") / "run"
    train(warm_up(run, digits))
    return run


def warm_up(run: Path, digits: Path) -> RunConfig:
    algorithm = {**PPO, "critic_steps": ALONE}
    return config(run, digits, algorithm=algorithm)


@pytest.fixture
def start(tmp_path: Path, policy: Policy) -> Tensors:
    """The weights that a run begins with, as a checkpoint names them."""
    policy.save(tmp_path / "start")
    return load_file(tmp_path / "start" / "model.safetensors")


def test_in_its_first_steps_a_run_leaves_the_policy_as_it_is(warmed: Path, start: Tensors) -> None:
    for step in range(1, ALONE + 1):
        assert same(policy_at(warmed, step), start)
    assert not same(policy_at(warmed, ALONE + 1), policy_at(warmed, ALONE))
    for step in range(1, STEPS):
        assert not same(critic_at(warmed, step, "weight."), critic_at(warmed, step + 1, "weight."))
    found = rows(warmed)
    assert [row["train/updates"] for row in found] == [0, 0, 0, 2, 2]
    assert all("train/value_loss" in row and "train/value_explained" in row for row in found)


@pytest.mark.parametrize("stopped", [1, ALONE, ALONE + 1])
def test_a_run_that_stops_around_the_warm_up_goes_on_bit_for_bit(
    stopped: int, warmed: Path, tmp_path: Path, digits: Path
) -> None:
    run = tmp_path / "again"
    shutil.copytree(warmed, run)
    drop_after(run, stopped, STEPS)
    train(warm_up(run, digits), resume=True)
    for step in range(1, STEPS + 1):
        assert same(policy_at(run, step), policy_at(warmed, step))
        assert same(critic_at(run, step), critic_at(warmed, step))
    assert [r["train/value_loss"] for r in rows(run)] == [
        r["train/value_loss"] for r in rows(warmed)
    ]


def test_the_rate_of_the_policy_falls_over_the_steps_it_learns_in(
    tmp_path: Path, digits: Path
) -> None:
    made = warm_up(tmp_path / "run", digits)
    schedule = OptimizerConfig(learning_rate=1.0e-3, schedule="linear")
    train(made.model_copy(update={"optimizer": schedule}))
    state = json.loads(
        (tmp_path / "run" / "checkpoints" / f"step_{STEPS}" / "trainer" / "state.json").read_text()
    )
    # Two updates in each of the two steps after the warm-up: 1, 3/4, 1/2, 1/4 of the rate.
    assert state["backend"]["updates"] == 4
    assert rows(tmp_path / "run")[-1]["train/learning_rate"] < 0.4e-3


@pytest.fixture(scope="module")
def phased(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A phase for the critic alone, PPO with that critic, PPO with it frozen."""
    run = tmp_path_factory.mktemp("phased") / "run"
    train(config(run, digits, VALUES, RL, FROZEN))
    return run


FROZEN = {**RL, "name": "frozen", "critic": {"frozen": True}}


def test_a_critic_is_kept_over_a_border_and_frozen_in_the_next(
    phased: Path, start: Tensors
) -> None:
    assert same(policy_at(phased, 2), start)
    moved = [not same(policy_at(phased, s), policy_at(phased, s + 1)) for s in range(2, 6)]
    assert moved == [True] * 4
    weights = [critic_at(phased, step, "weight.") for step in range(2, 7)]
    assert not same(weights[0], weights[1]) and not same(weights[1], weights[2])
    # Bit for bit the same through two steps of PPO in which it is frozen.
    assert same(weights[2], weights[3]) and same(weights[2], weights[4])
    # Phase 2 went on from what phase 1 learnt: the head had left 0, and its moments are new.
    assert critic_at(phased, 3, "optimizer.step.head.bias")["optimizer.step.head.bias"] == 2.0
    first = rows(phased)[0]["train/value_explained"]
    assert first == pytest.approx(0.0)
    assert rows(phased)[2]["train/value_explained"] != first


def test_what_a_phase_starts_with_is_what_the_border_holds(
    phased: Path, tmp_path: Path, digits: Path
) -> None:
    """The values of the first step after the border are those of the critic of the border."""
    new = {**RL, "name": "new", "keep": ["state"]}
    train(config(tmp_path / "new", digits, VALUES, new))
    # A new critic says 0 of everything and explains nothing.
    assert rows(tmp_path / "new")[2]["train/value_explained"] == pytest.approx(0.0)
    assert rows(phased)[2]["train/value_explained"] != pytest.approx(0.0)
    assert same(policy_at(tmp_path / "new", 2), policy_at(phased, 2))


@pytest.mark.parametrize("stopped", [1, 2, 4])
def test_a_run_resumes_at_every_border_of_its_critic(
    stopped: int, phased: Path, tmp_path: Path, digits: Path
) -> None:
    run = tmp_path / "again"
    shutil.copytree(phased, run)
    drop_after(run, stopped, 6)
    train(config(run, digits, VALUES, RL, FROZEN), resume=True)
    assert same(policy_at(run, 6), policy_at(phased, 6))
    assert same(critic_at(run, 6), critic_at(phased, 6))


def test_the_moments_of_a_critic_are_kept_with_the_optimizer(tmp_path: Path, digits: Path) -> None:
    kept = {**RL, "keep": ["critic", "optimizer"], "trainer": {"steps": 1}}
    train(config(tmp_path / "run", digits, VALUES, kept))
    # Two mini-batches in each of two steps before the border, and two after it.
    found = critic_at(tmp_path / "run", 3, "optimizer.step.head.bias")
    assert found == {"optimizer.step.head.bias": torch.tensor(6.0)}


@pytest.mark.parametrize("whole_run", [True, False], ids=["run", "checkpoint"])
def test_a_critic_of_another_run_is_loaded_and_frozen(
    whole_run: bool, phased: Path, tmp_path: Path, digits: Path
) -> None:
    path = phased if whole_run else phased / "checkpoints" / "step_2"
    taken = 6 if whole_run else 2
    critic = {"path": str(path), "frozen": True}
    made = config(tmp_path / "run", digits, algorithm=PPO, critic=critic, trainer={"steps": 3})
    train(made)
    assert same(critic_at(tmp_path / "run", 3), critic_at(phased, taken, "weight."))
    # A run that goes on has its own copy.
    gone = made.model_copy(update={"critic": made.critic.model_copy(update={"path": Path("gone")})})
    last = policy_at(tmp_path / "run", 3)
    drop_after(tmp_path / "run", 2, 3)
    train(gone, resume=True)
    assert same(policy_at(tmp_path / "run", 3), last)


def test_a_loaded_critic_learns_on(phased: Path, tmp_path: Path, digits: Path) -> None:
    critic = {"path": str(phased)}
    train(config(tmp_path / "run", digits, algorithm=PPO, critic=critic, trainer={"steps": 1}))
    assert not same(critic_at(tmp_path / "run", 1, "weight."), critic_at(phased, 6, "weight."))
    assert rows(tmp_path / "run")[0]["train/value_explained"] != pytest.approx(0.0)


@pytest.mark.parametrize(
    ("phases", "sections", "message"),
    [
        ([VALUES, {**RL, "algorithm": {"name": "grpo"}}], {}, "'grpo' has none"),
        ([{**VALUES, "algorithm": {"name": "grpo"}}, RL], {}, "'values' before it has no critic"),
        ([{**VALUES, "keep": ["critic"]}], {}, "'values' is the first"),
        ([VALUES, {**RL, "critic": {"trunk": "shared"}}], {}, "set critic.trunk to own"),
        ([VALUES, {**RL, "critic": {"path": "x"}}], {}, "leave critic.path or keep"),
        ([VALUES, {**FROZEN, "keep": []}], {}, "phase 'frozen': critic.frozen needs a critic"),
        ([], {"critic": {"frozen": True}}, "critic.frozen needs a critic that has learnt"),
        ([VALUES, {**FROZEN, "algorithm": {**PPO, "critic_steps": 1}}], {}, "critic_steps to 0"),
        ([], {"critic": {"path": "nowhere"}}, "nowhere holds no critic: name a run"),
    ],
)
def test_mistakes_with_critics_are_one_line_before_anything_is_done(
    phases: list[dict[str, Any]],
    sections: dict[str, Any],
    message: str,
    tmp_path: Path,
    digits: Path,
) -> None:
    with pytest.raises(UserError) as error:
        train(config(tmp_path / "run", digits, *phases, algorithm=PPO, **sections))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_frozen_critic_does_not_stand_on_the_policy() -> None:
    with pytest.raises(UserError, match="a shared one moves with the policy"):
        validate(CriticConfig, {"trunk": "shared", "frozen": True}, "test")


def test_a_critic_file_that_was_cut_is_one_line(phased: Path, tmp_path: Path, digits: Path) -> None:
    run = tmp_path / "again"
    shutil.copytree(phased, run)
    drop_after(run, 3, 6)
    for folder in (run / "checkpoints").iterdir():
        file = folder / "trainer" / "critic.safetensors"
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"step_3 is damaged .*critic.safetensors is not what"):
        train(config(run, digits, VALUES, RL, FROZEN), resume=True)
    shutil.rmtree(run)
    shutil.copytree(phased, run)
    drop_after(run, 3, 6)
    whole = critic_at(phased, 3)
    whole["weight.head.weight"] = torch.zeros(1, 3)
    folder = run / "checkpoints" / "step_3" / "trainer"
    save_file(whole, folder / "critic.safetensors")
    (folder / "checksums.json").unlink()
    with pytest.raises(ConfigError, match=r"its 'head.weight' is \[1, 3\]"):
        train(config(run, digits, VALUES, RL, FROZEN), resume=True)


def test_phases_say_what_they_keep(tmp_path: Path, digits: Path) -> None:
    first, second, third = phases_of(config(tmp_path, digits, VALUES, RL, FROZEN))
    assert [p.config.critic.frozen for p in (first, second, third)] == [False, False, True]
    assert "critic" in second.keep and "critic" not in first.keep


def test_a_kl_schedule_does_not_react_to_steps_of_the_critic_alone(
    tmp_path: Path, digits: Path
) -> None:
    kl = {"estimator": "k3", "placement": "loss", "schedule": {"name": "adaptive", "initial": 0.2}}
    algorithm = {**PPO, "critic_steps": ALONE, "kl": kl}
    run = tmp_path / "run"
    train(config(run, digits, algorithm=algorithm))
    found = [row["train/kl_coefficient"] for row in rows(run)]
    assert found[: ALONE + 1] == [0.2] * (ALONE + 1)
    assert found[ALONE + 1] != 0.2
