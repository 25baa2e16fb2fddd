"""Preference losses on stored pairs: TRL's number on the same, and runs that learn from them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from mmrl.algorithms.compose import compose
from mmrl.config import RunConfig
from mmrl.engines.targets import Targets
from mmrl.policy.encoder import Encoder
from mmrl.policy.model_folder import model_folder
from mmrl.policy.policy import Policy
from mmrl.rollout.rollouts import Rollouts
from mmrl.rollout.stored import Stored
from mmrl.rollout_config import RolloutConfig
from mmrl.runlog.journal import Journal
from mmrl.scoring.pool import Scorer, TaskSpec
from mmrl.train.learner import Learner
from mmrl.train.reference import ReferencePolicy, Teacher
from mmrl.train.run import train
from mmrl.types import Group, Reference, Sample
from mmrl.validation import validate
from tests.algorithms.cases import context
from tests.conftest import TINY, noise_image
from tests.runs import make_digits, run_config
from tests.train.test_learner import Gradients

PAIRS = (
    ("<answer>3</answer>", "four of them, I believe <answer>4</answer>"),
    ("I see a long row of digits: <answer>12</answer>", "<answer>5</answer>"),
    ("none", "<answer>1</answer>"),
)
SIZES = ((56, 84), (112, 56), (28, 28))


def stored(ask: Callable[..., Sample]) -> list[Sample]:
    """Questions with a picture each and a pair of ragged answers."""
    made = []
    for number, (pair, size) in enumerate(zip(PAIRS, SIZES, strict=True)):
        sample = ask((*size, number), "How many digits?", id=str(number))
        chosen, rejected = pair
        given = Reference(chosen, ranked=((chosen, 1.0), (rejected, 0.0)))
        made.append(replace(sample, reference=given))
    return made


def offline(policy: Policy, encoder: Encoder, samples: list[Sample]) -> list[Group]:
    """The groups that a run without sampling makes of stored pairs, scored."""
    config = RolloutConfig(engine="targets", max_new_tokens=64)
    prompts = [encoder.prompt(sample) for sample in samples]
    spec = {"test": TaskSpec("custom", {"function": []})}
    with Scorer(spec, workers=1, timeout_seconds=60.0) as scorer:
        rollouts = Rollouts(Targets(policy, {}), scorer, config, stored=Stored(policy, None))
        return rollouts.score(rollouts.sample(prompts, [8] * len(prompts), None, 0))


def moved(policy: Policy) -> Policy:
    """The policy away from its reference."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    return policy


def plain(policy: Policy) -> torch.nn.Module:
    """The same weights in transformers' own model, with its own attention."""
    folder = model_folder(TINY)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    model.load_state_dict(policy.model.state_dict())
    return model


def trl_loss(
    policy: Policy, reference: Policy, groups: list[Group], folder: Path, **settings: Any
) -> tuple[float, dict[str, torch.Tensor]]:
    """What TRL's own trainer computes on the pairs, and the gradient of every parameter."""
    trl = pytest.importorskip("trl", reason="compares with TRL, which the extra `test` installs")
    datasets = pytest.importorskip("datasets")
    end = policy.processor.tokenizer.decode([policy.family.end_ids[0]])
    rows = [
        {
            "prompt": policy.processor.tokenizer.decode(list(group.prompt.compact_ids)),
            "chosen": PAIRS[i][0] + end,
            "rejected": PAIRS[i][1] + end,
            "images": [picture(i)],
        }
        for i, group in enumerate(groups)
    ]
    config = trl.DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=len(rows),
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        **settings,
    )
    trainer = trl.DPOTrainer(
        model=plain(policy),
        ref_model=plain(reference),
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=policy.processor,
    )
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    loss.backward()
    named = trainer.accelerator.unwrap_model(trainer.model).named_parameters()
    return float(loss.detach()), {n: p.grad.clone() for n, p in named if p.grad is not None}


def picture(number: int) -> Image.Image:
    source = noise_image(*SIZES[number], number).source
    assert isinstance(source, bytes)
    return Image.open(io.BytesIO(source))


CASES = {
    "dpo": ({"name": "dpo", "beta": 0.3}, {"beta": 0.3}),
    "ipo": ({"name": "ipo", "beta": 0.2, "average": True}, {"beta": 0.2, "loss_type": ["ipo"]}),
    "exo": (
        {"name": "exo", "beta": 0.3, "smoothing": 0.05},
        {"beta": 0.3, "loss_type": ["exo_pair"], "label_smoothing": 0.05},
    ),
    "rdpo": (
        {"name": "rdpo", "beta": 0.3, "flipped": 0.2},
        {"beta": 0.3, "loss_type": ["robust"], "label_smoothing": 0.2},
    ),
    "wpo": ({"name": "wpo", "beta": 0.3}, {"beta": 0.3, "use_weighting": True}),
}
STARTS = {"dpo": np.log(2), "ipo": 6.25, "rdpo": np.log(2)}
"""What a loss is where the policy is the reference."""


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_on_stored_pairs_equal_those_of_trls_trainer(
    name: str, policy: Policy, encoder: Encoder, ask: Callable[..., Sample], tmp_path: Path
) -> None:
    section, settings = CASES[name]
    reference = policy.frozen_copy()
    for each in (policy, reference):
        each.family.banned_ids = ()  # TRL's distribution has the placeholders of media in it
    groups = offline(moved(policy), encoder, stored(ask))
    algorithm = compose(section)
    backend = Gradients(policy)
    learner = Learner(
        policy,
        algorithm,
        backend,
        temperature=1.0,
        tokens_per_micro_batch=100,
        reference=ReferencePolicy([Teacher(reference)]),
    )
    stats = learner.update(algorithm.train_samples(learner.observe(groups), context()), 0.0)
    expected, theirs = trl_loss(policy, reference, groups, tmp_path, **settings)
    # WPO's weights are those of answers that the shaken policy would hardly write.
    least = 1e-5 if name == "wpo" else 1e-3
    assert abs(expected - STARTS.get(name, 0.0)) > least  # it is not the start's
    assert stats.loss == pytest.approx(expected, abs=least / 100)
    names = [name for name, _ in policy.model.named_parameters() if name in theirs]
    flat = torch.cat([theirs[name].flatten() for name in names])
    (ours,) = backend.steps
    assert ours.shape == flat.shape and flat.norm() > least
    assert (ours - flat).norm() < 1e-4 * flat.norm()


def in_pairs(digits: Path, count: int) -> Path:
    """Digit records with a right and a wrong number each."""
    rng = np.random.default_rng(0)
    rows = []
    for line in (digits / "digit_count" / "train.jsonl").read_text().splitlines()[:count]:
        row = json.loads(line)
        wrong = row["count"] + int(rng.choice([-2, -1, 1, 2]))
        row |= {
            "chosen": f"<answer>{row['count']}</answer>",
            "rejected": f"<answer>{abs(wrong) if wrong != -row['count'] else 9}</answer>",
        }
        rows.append(json.dumps(row))
    path = digits / "digit_count" / "pairs.jsonl"
    path.write_text("\n".join(rows) + "\n")
    return path


def groups_of(run: Path) -> list[dict[str, Any]]:
    return list(Journal(run / "rollouts.jsonl").rows())


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("digits"), train=12, test=2)


def carry_out(config: dict[str, Any]) -> dict[str, Any]:
    return train(validate(RunConfig, config, "test"))


@pytest.mark.parametrize(
    "name", ["dpo", "ipo", "simpo", "mpo", "rebel", "kto", "wpo", "sr_dpo", "odpo", "gr_dpo"]
)
def test_pairs_train_offline(name: str, tmp_path: Path, digits: Path) -> None:
    """Nothing is sampled: the two completions of a record are its group, and earn 1 and 0."""
    config = run_config(tmp_path / "run", digits)
    config["data"] = {"task": "digit_count", "path": str(in_pairs(digits, 12))}
    config["algorithm"] = {"name": name, "group_size": 8}
    config["rollout"] |= {"engine": "targets"}
    config["trainer"] |= {"steps": 2}
    carry_out(config)
    for group in groups_of(tmp_path / "run"):
        chosen, rejected = group["responses"]
        assert (chosen["reward"], rejected["reward"]) == (1.0, 0.0)
        assert chosen["parts"] == {"accuracy": 1.0, "stored": 1.0}  # the verifier agrees
        assert chosen["text"] == f"<answer>{group['gold']}</answer>"
    *_, last = Journal(tmp_path / "run" / "metrics.jsonl").rows()
    assert np.isfinite(last["train/loss"]) and last["train/grad_norm"] > 0


@pytest.mark.parametrize("name", ["dpo", "mpo", "grpo", "hypo"])
def test_pairs_train_mixed_with_what_is_sampled(name: str, tmp_path: Path, digits: Path) -> None:
    config = run_config(tmp_path / "run", digits)
    config["data"] = {"task": "digit_count", "path": str(in_pairs(digits, 12))}
    config["algorithm"] = {"name": name, "group_size": 5}
    config["rollout"] |= {"stored": 2}
    config["trainer"] |= {"steps": 2}
    carry_out(config)
    for group in groups_of(tmp_path / "run"):
        assert len(group["responses"]) == 5
        assert ["stored" in r["parts"] for r in group["responses"]] == [True] * 2 + [False] * 3
    *_, last = Journal(tmp_path / "run" / "metrics.jsonl").rows()
    assert np.isfinite(last["train/loss"])


def test_rollouts_of_one_run_are_the_pairs_of_another(tmp_path: Path, digits: Path) -> None:
    """Also what an evaluation asked: there the task says what each answer earned."""
    first = run_config(tmp_path / "first", digits)
    first["algorithm"] = {"name": "grpo", "group_size": 6}
    first["data"].pop("eval_path")
    first["trainer"] |= {"steps": 2, "prompts_per_step": 6}
    carry_out(first)
    second = {**first, "run": str(tmp_path / "second")}
    second["algorithm"] = {"name": "dpo", "pairs": "all"}
    second["rollout"] = {**first["rollout"], "engine": "targets"}
    second["data"] = {**first["data"], "stored": str(tmp_path / "first"), "max_unusable_share": 1.0}
    carry_out(second)
    earned: dict[str, dict[str, float]] = {}
    for group in groups_of(tmp_path / "first"):
        earned.setdefault(group["id"], {}).update(
            {r["text"]: r["reward"] for r in group["responses"] if r["finish"] == "stop"}
        )
    trained = groups_of(tmp_path / "second")
    assert trained
    for group in trained:
        found = {r["text"]: r["reward"] for r in group["responses"]}
        assert found == earned[group["id"]] and len(set(found.values())) > 1


@pytest.mark.slow
def test_offline_dpo_on_stored_pairs_raises_accuracy(tmp_path: Path) -> None:
    """47.0% -> 64.5% in 60 steps of 16 pairs when this was written (200 held-out canvases)."""
    digits = make_digits(tmp_path / "digits", train=1000, test=200)
    config = run_config(tmp_path / "run", digits)
    config["data"] |= {"path": str(in_pairs(digits, 1000))}
    config["algorithm"] = {"name": "dpo"}
    config["rollout"] |= {"engine": "targets"}
    config["optimizer"] = {
        "learning_rate": 3e-4, "betas": [0.9, 0.95], "warmup_steps": 5, "schedule": "linear"
    }  # fmt: skip
    config["trainer"] = {"steps": 60, "prompts_per_step": 16}
    result = carry_out(config)
    print("held-out accuracy", result["before"], "->", result["after"])
    assert result["after"] > result["before"] + 0.1
