"""What a run does with groups, rewards and options that make no sense: defined, or one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrl import plugins
from mmrl.algorithms.compose import compose
from mmrl.algorithms.stages.policy_view import Aided, Collision, Implied, Mismatched
from mmrl.config import RunConfig
from mmrl.errors import UserError
from mmrl.runlog.journal import Journal
from mmrl.train.run import train
from mmrl.types import Episode, Extra, Group, Score, TokenSpan
from mmrl.validation import validate
from tests.algorithms.cases import context, group
from tests.runs import make_digits, run_config

PLAIN = ("grpo", "dr_grpo", "dapo", "gspo", "cispo", "reinforce_pp", "opo", "gpg", "cppo", "raft")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("digits"), train=4, test=2)


def start(folder: Path, digits: Path, **sections: Any) -> list[dict[str, Any]]:
    small = {"trainer": {"steps": 2, "prompts_per_step": 2}, **sections}
    values = run_config(folder, digits, **small)
    values["data"].pop("eval_path", None)
    values["algorithm"] = sections.get("algorithm", values["algorithm"])
    train(validate(RunConfig, values, "test"))
    return list(Journal(folder / "metrics.jsonl").rows())


@pytest.mark.parametrize("name", PLAIN)
def test_a_group_without_a_verdict_trains_on_nothing(name: str) -> None:
    algorithm = compose({"name": name})
    samples = algorithm.train_samples([group([None, None, None], [2, 0, 1])], context())
    assert all(not s.mask.any() for s in samples)
    assert all(np.isfinite(s.advantages).all() for s in samples)


@pytest.mark.parametrize("name", PLAIN)
def test_a_reward_that_is_not_a_number_counts_as_no_verdict(name: str) -> None:
    algorithm = compose({"name": name})
    known = algorithm.train_samples([group([1.0, None, 0.0], [2, 2, 2])], context())
    nan = algorithm.train_samples([group([1.0, float("nan"), 0.0], [2, 2, 2])], context())
    assert len(known) == len(nan)
    for one, other in zip(known, nan, strict=True):
        assert np.array_equal(one.mask, other.mask)
        assert np.array_equal(one.advantages, other.advantages)


@pytest.mark.parametrize("name", sorted(plugins.available("algorithm")))
def test_an_empty_response_has_no_token_and_breaks_nothing(name: str) -> None:
    """Where an algorithm reads more than rewards, it is given that for zero tokens too."""
    algorithm = compose({"name": name})
    made = group([1.0, 0.0], [0, 3])
    sample = replace(
        made.prompt.sample, meta={"key_steps": ["a"], "rewrites": ["x"], "pass_rate": 0.5}
    )
    parts = {"accuracy": 1.0, "format": 1.0}
    rich: Group = replace(
        made,
        prompt=replace(made.prompt, sample=sample),
        responses=tuple(
            replace(r, episode=Episode((TokenSpan(0, len(r.ids), 0.5, "start"),), ("",)))
            if "turns" in algorithm.needs
            else r
            for r in made.responses
        ),
        scores=tuple(Score({**parts, "accuracy": r}, None, reward=r) for r in (1.0, 0.0)),
        extra=Extra(
            entropy=[np.zeros(0), np.ones(3)],
            self_certainty=[np.zeros(0), np.ones(3)],
            values=[np.zeros(0), np.zeros(3)],
            reference=[np.zeros(0), np.zeros(3)],
            greedy=0.0,
            gradient_norms=[0.0, 1.0],
            steps=[[], []],
            offsets=[np.zeros(1, dtype=int), np.zeros(4, dtype=int)],
            own=(
                Collision([np.zeros(0), np.zeros(3)]),
                Implied(np.zeros(2)),
                Mismatched(0.0),
                Aided(np.zeros(2)),
            ),
        ),
    )
    here = context(value_estimates={"q": 0.5}, probes={"q": {"rate": 0.5, "norm": 1.0}})
    here = replace(here, write=lambda sample, text: None)  # a question that cannot be shown
    shaped = algorithm.shape_rewards([rich], here)
    samples = algorithm.train_samples(algorithm.edit_groups(shaped, here).groups, here)
    assert all(len(s.advantages) == len(s.mask) == len(s.response.ids) for s in samples)
    assert all(np.isfinite(s.advantages).all() for s in samples)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "grpo", "group_size": 0}, "group_size"),
        ({"name": "rloo", "group_size": 1}, "group_size"),
        ({"name": "gvpo", "group_size": 1}, "group_size"),
        ({"name": "dpo", "group_size": 1}, "group_size"),
        ({"name": "dapo", "group_size": 1}, "group_size"),
        ({"name": "grpo", "group_size": 1}, "group_size"),
        ({"name": "gspo", "group_size": 1}, "group_size"),
    ],
)
def test_a_group_of_one_is_refused_where_it_means_nothing(
    section: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        compose(section)


def test_a_run_without_any_verdict_goes_on_where_it_may(tmp_path: Path, digits: Path) -> None:
    records = tmp_path / "records.jsonl"
    records.write_text('{"prompt": "How many?"}\n')
    data = {
        "task": "custom",
        "path": str(records),
        "params": {"function": "tests.verifiers:abstains"},
        "eval_path": None,
    }
    rollout = {"max_unscorable_share": 1.0}
    rows = start(tmp_path / "run", digits, data=data, rollout=rollout)
    assert [row["share/unscorable"] for row in rows] == [1.0, 1.0]
    assert [row["train/updates"] for row in rows] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "share_grpo"}, "add `rewrites` to the records, or `templates` or `changes`"),
        ({"name": "sari"}, "has no `pass_rate` in its meta"),
        (
            {"name": "ptst", "format_part": "format"},
            "has no reward part 'format'; known: accuracy",
        ),
    ],
)
def test_what_the_data_lack_is_said(
    section: dict[str, Any], message: str, tmp_path: Path, digits: Path
) -> None:
    with pytest.raises(UserError) as error:
        start(tmp_path / "run", digits, algorithm=section)
    assert message in str(error.value)


def test_changed_pictures_need_a_task_that_knows_its_gold(tmp_path: Path, digits: Path) -> None:
    section = {"name": "share_grpo", "changes": ["rotate_90_cw"], "group_size": 2}
    records = tmp_path / "records.jsonl"
    image = next((digits / "digit_count" / "images").iterdir())
    records.write_text(f'{{"prompt": "<image>Left or right?", "image": "{image.name}"}}\n')
    (tmp_path / image.name).write_bytes(image.read_bytes())
    params = {"function": "tests.verifiers:abstains"}
    data = {"task": "custom", "path": str(records), "params": params, "eval_path": None}
    with pytest.raises(UserError, match="task 'custom' does not say its gold for changed pictures"):
        start(tmp_path / "a", digits, algorithm=section, data=data)
    rows = start(tmp_path / "b", digits, algorithm=section)
    assert all(row["train/rows"] == 2 * 2 * 2 * 2 for row in rows)  # m x m x n for each question
    first = next(iter(Journal(tmp_path / "b" / "rollouts.jsonl").rows()))
    assert first["variant"] in ("", "rotate_90_cw")
