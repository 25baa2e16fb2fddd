"""References that follow the policy as an algorithm says (TR-DPO, iterative DPO), soups, guides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.algorithms.compose import compose
from mmrl.config import RunConfig
from mmrl.errors import ConfigError
from mmrl.policy.policy import Policy
from mmrl.runlog.journal import Journal
from mmrl.train.reference import ReferencePolicy, Teacher
from mmrl.train.reference_config import following, reference_of
from mmrl.train.run import train
from mmrl.validation import validate
from tests.runs import make_digits, run_config

SOFT = {"name": "tr_dpo", "alpha": 0.25, "every": 2}


def moved(policy: Policy, by: float) -> None:
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += by


def test_a_soft_update_comes_after_every_so_many_steps(policy: Policy) -> None:
    """It comes a quarter of the way to the policy after steps 2 and 4, and stays between."""
    algorithm = compose(SOFT)
    section = following(reference_of({}), algorithm.follows)
    reference = ReferencePolicy(
        [Teacher(policy.frozen_copy())], average=section.average, every=section.every
    )
    first = next(iter(policy.model.parameters()))
    start = first.detach().clone()
    held = next(iter(reference.only().model.parameters()))
    seen = []
    for step in (1, 2, 3, 4):
        moved(policy, 1.0)
        reference.follow(policy, step)
        seen.append(float((held - start).detach().mean()))
    # 0, then 0.25 x 2, the same, then 0.75 x 0.5 + 0.25 x 4
    assert seen == pytest.approx([0.0, 0.5, 0.5, 1.375], abs=1e-5)


@pytest.mark.parametrize(
    ("section", "average", "every"),
    [
        (SOFT, 0.75, 2),
        ({**SOFT, "update": "hard"}, None, 2),
        ({"name": "iterative_dpo", "every": 7}, None, 7),
        ({"name": "iterative_dpo", "every": 0}, None, None),
        ({"name": "dpo"}, None, None),
    ],
)
def test_what_an_algorithm_says_stands_where_a_run_says_nothing(
    section: dict[str, Any], average: float | None, every: int | None
) -> None:
    follows = compose(section).follows
    found = following(reference_of({"path": "somewhere"}), follows)
    assert (found.average, found.every, found.path) == (average, every, "somewhere")
    own = following(reference_of({"every": 3}), follows)
    assert (own.average, own.every) == (None, 3)
    taught = following(reference_of({"teachers": [{"path": "a"}]}), follows)
    assert not taught.moves


def test_teachers_may_be_taken_off_but_not_all() -> None:
    """RTO's mean has weights beta 1 / beta 2 and 1 - beta 1 / beta 2."""
    teachers = [{"path": "a", "weight": 4.0}, {"path": "b", "weight": -3.0}]
    assert [t.weight for t in reference_of({"teachers": teachers}).teachers] == [4.0, -3.0]
    teachers[1]["weight"] = -4.0
    with pytest.raises(ConfigError, match="add up to more than 0"):
        reference_of({"teachers": teachers})


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("digits"), train=6, test=2)


def carry_out(folder: Path, digits: Path, algorithm: dict[str, Any], **more: Any) -> list[Any]:
    """The metrics of three steps."""
    config = run_config(folder, digits, trainer={"steps": 3, "prompts_per_step": 2})
    config["algorithm"] = algorithm
    config["data"].pop("eval_path")
    config["optimizer"] = {"learning_rate": 1e-3}
    train(validate(RunConfig, {**config, **more}, "test"))
    return list(Journal(folder / "metrics.jsonl").rows())


def test_a_hard_update_makes_dpo_begin_anew(tmp_path: Path, digits: Path) -> None:
    """With the reference at the policy after every step, a pair's loss is log 2 each time.

    Two prompts a step, of which one or both have a pair: multiples of log 2 / 2.
    """
    hard = {"name": "tr_dpo", "update": "hard", "every": 1, "group_size": 6}
    rows = carry_out(tmp_path / "hard", digits, hard)
    pairs = np.array([row["train/loss"] for row in rows if "train/loss" in row]) / np.log(2) * 2
    np.testing.assert_allclose(pairs, np.round(pairs), atol=1e-5)
    assert len(pairs) > 1 and (pairs > 0.5).all()
    plain = carry_out(tmp_path / "plain", digits, {"name": "dpo", "group_size": 6})
    away = plain[-1]["train/loss"] / np.log(2) * 2
    assert abs(away - round(away)) > 1e-4


def test_a_soup_and_a_guide_are_references(tmp_path: Path, digits: Path) -> None:
    """SALSA's is the mean of two models, Pre-DPO's the run that came first, from the same start."""
    carry_out(tmp_path / "first", digits, {"name": "dpo", "group_size": 6})
    guide = {"path": str(tmp_path / "first")}
    second = carry_out(
        tmp_path / "second", digits, {"name": "dpo", "group_size": 6}, reference=guide
    )
    assert abs(second[0]["train/loss"] - np.log(2)) > 1e-5  # the guide is elsewhere
    soup = {"mean_of": [str(tmp_path / "first"), str(tmp_path / "second")]}
    held = {"name": "ppo", "group_size": 2, "kl_coefficient": 0.05}
    rows = carry_out(tmp_path / "soup", digits, held, reference=soup)
    assert all(np.isfinite(row["train/loss"]) for row in rows)
    assert rows[0]["train/kl"] != 0
