"""Every algorithm trains by its name alone, and the same after a resume."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from mmrl import plugins
from mmrl.algorithms.compose import compose
from mmrl.algorithms.stages.length_terms import LENGTH_TERMS
from mmrl.algorithms.stages.text_terms import TEXT_TERMS
from mmrl.config import RunConfig
from mmrl.errors import UserError
from mmrl.runlog.journal import Journal
from mmrl.train.algorithm_case import evaluate_case
from mmrl.train.run import train
from mmrl.validation import validate
from tests.runs import make_digits, run_config

STEPS = 4


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits whose records have what algorithms read of them."""
    folder = make_digits(tmp_path_factory.mktemp("digits"), train=6, test=2)
    for task in ("digit_count", "digit_box"):
        path = folder / task / "train.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for i, row in enumerate(rows):
            row["key_steps"] = ["digits", ["count", "number"]]
            row["rewrites"] = ["Count the digits. Answer between <answer> </answer> tags."]
            row["pass_rate"] = i / len(rows)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def config(folder: Path, digits: Path, name: str, **sections: Any) -> dict[str, Any]:
    small = {"trainer": {"steps": 2, "prompts_per_step": 2}, **sections}
    made = run_config(folder, digits, **small)
    made["algorithm"] = {"name": name, **OPTIONS.get(name, {})}
    made["data"].pop("eval_path")
    return made


def carry_out(config: dict[str, Any], **flags: bool) -> dict[str, Any]:
    return train(validate(RunConfig, config, "test"), **flags)


OPTIONS: dict[str, dict[str, Any]] = {
    "stepgrpo": {"pay": "span", "group_size": 2},
    "share_grpo": {"changes": ["rotate_90_cw", "noise_10"], "change_share": 1.0, "group_size": 2},
}
IN_TURNS = ("dmpo", "gigpo", "sdpo", "turn_level")
"""These need episodes of several turns, and get a maze to walk through."""
PAIRS_OF_TURNS = ("dmpo", "sdpo")

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = yaml.safe_load(README[README.index("# my.yaml") :].split("```")[0])["algorithm"]


def maze(digits: Path) -> dict[str, Any]:
    folder = digits / "mazes"
    if not folder.exists():
        build = importlib.import_module("mmrl.data_recipes.mazes").build
        build(None, folder, train=4, validation=1, test=1)
    return {"task": "maze_walk", "path": str(folder / "train.jsonl"), "params": {"turns": 2}}


@pytest.mark.parametrize("name", sorted(plugins.available("algorithm")))
def test_the_readmes_section_trains_with_its_name_changed(
    name: str, tmp_path: Path, digits: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = config(tmp_path / "run", digits, name)
    made["algorithm"] = {**SECTION, "name": name}
    if name == "sft":  # which a run refuses on what the model says itself, and says so
        made["rollout"] |= {"engine": "targets"}
    if name in IN_TURNS:
        made |= {"data": maze(digits), "rollout": {**made["rollout"], "max_turn_tokens": 4}}
    if name in PAIRS_OF_TURNS:  # the tiny model's walks all earn 0: pairs are of how it stutters
        made["algorithm"]["shape"] = [{"name": "repeated_ngrams", "n": 1}]
        made["rollout"] |= {"max_turn_tokens": 12, "max_new_tokens": 48}
    made["trainer"] |= {"steps": 1, "max_refills": 1}
    carry_out(made)
    *estimates, row = Journal(tmp_path / "run" / "metrics.jsonl").rows()
    trains = name not in ("gvm_probe", "value_estimates", "pass_rate_estimates")  # they only ask
    assert np.isfinite(row["train/loss"]) if trains else "train/loss" not in row
    # Where a phase of estimates comes first, it asks each of the six samples once.
    assert len(estimates) == (3 if name in ("a_star_po", "gvm_raft") else 0)
    said = " ".join(capfd.readouterr().err.split())
    for note in compose(made["algorithm"], made["rollout"]["max_new_tokens"]).notes:
        assert " ".join(note.split()) in said
    # Twice as many in PTST's first of three stages; two variants of each question.
    groups = list(Journal(tmp_path / "run" / "rollouts.jsonl").rows())[-row_groups(row) :]
    sizes = {"ptst": 16, "sft": 1}
    if name not in ("gvm_raft", "brpo", "ssb", "arpo"):  # they share them out, add or replay
        assert {len(group["responses"]) for group in groups} == {sizes.get(name, 8)}


def row_groups(row: dict[str, float]) -> int:
    return int(row["prompts/kept"])


def test_the_names_are_the_readmes() -> None:
    """What is changed in the test above is what a reader would start from."""
    assert SECTION == {"name": "grpo", "group_size": 8, "kl_coefficient": 0.01}


def test_a_run_pays_every_term_of_length_and_text(tmp_path: Path, digits: Path) -> None:
    """Named by a configuration, all reach what the responses of a run are trained with."""
    shape = [*LENGTH_TERMS, *TEXT_TERMS]
    found = {}
    for run, stages in (("plain", []), ("shaped", shape)):
        made = config(tmp_path / run, digits, "grpo")
        made["algorithm"] |= {"shape": stages, "credit": "raw"}
        made["trainer"] |= {"steps": 1}
        carry_out(made)
        groups = Journal(tmp_path / run / "rollouts.jsonl").rows()
        found[run] = [group["responses"] for group in groups]
    cases = [
        [{key: r[key] for key in ("reward", "text", "length")} for r in group]
        for group in found["plain"]
    ]
    case = {"groups": cases, "params": {"shape": shape, "credit": "raw"}, "max_new_tokens": 8}
    wanted = evaluate_case("grpo", case)["rewards"]
    assert len(wanted) == 2 and len({reward for rewards in wanted for reward in rewards}) > 2
    for group, rewards in zip(found["shaped"], wanted, strict=True):
        assert [r["advantages"] for r in group] == pytest.approx(rewards, abs=1e-6)


def test_stages_of_four_papers_train_together(tmp_path: Path, digits: Path) -> None:
    """StepGRPO's rewards, DAPO's filter, CISPO's objective and GRPO-D's schedule."""
    made = config(tmp_path / "run", digits, "stepgrpo")
    made["algorithm"] = {
        "name": "stepgrpo",
        "group_size": 6,
        "objective": {"name": "cispo", "high": 4.0},
        "reducer": "token-mean",
        "edit": ["dapo_filter"],
        "kl": {"schedule": {"name": "grpo_d", "low": 0.01, "high": 0.03}},
    }
    carry_out(made)
    rows = list(Journal(tmp_path / "run" / "metrics.jsonl").rows())
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["train/updates"] == 1 and row["train/rows"] == 12 for row in rows)
    assert all(row["share/zero_variance"] == 0.0 for row in rows)
    first, second = (row["train/kl_coefficient"] for row in rows)
    assert 0.01 <= min(first, second) < max(first, second) <= 0.03


@pytest.mark.parametrize(
    ("name", "params", "rows_to_responses"),
    [
        ("grpo", {"group_size": 4}, 1.0),
        ("cppo", {"group_size": 4, "pruned": 0.75}, 0.25),
        ("share_grpo", OPTIONS["share_grpo"], 2.0),  # two variants of each question
    ],
)
def test_the_metrics_say_how_many_rows_an_answer_is_trained_as(
    name: str, params: dict[str, Any], rows_to_responses: float, tmp_path: Path, digits: Path
) -> None:
    made = config(tmp_path / "run", digits, name)
    made["algorithm"] = {"name": name, **params}
    carry_out(made)
    rows = list(Journal(tmp_path / "run" / "metrics.jsonl").rows())
    assert [row["train/rows_to_responses"] for row in rows] == [rows_to_responses] * 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("stepgrpo", OPTIONS["stepgrpo"]),
        ("share_grpo", OPTIONS["share_grpo"]),
        ("brpo", {"budgets": [2, 4], "summaries": 2, "group_size": 2}),
        ("ptst", {"lengths": [4, 8], "group_sizes": [4, 2], "format_part": "accuracy"}),
    ],
)
def test_it_trains_with_options_of_its_own(
    name: str, options: dict[str, Any], tmp_path: Path, digits: Path
) -> None:
    made = config(tmp_path / "run", digits, name)
    made["algorithm"] = {"name": name, **options}
    carry_out(made)
    rows = list(Journal(tmp_path / "run" / "metrics.jsonl").rows())
    assert [row["step"] for row in rows] == [1, 2]


@pytest.mark.parametrize("name", IN_TURNS)
def test_without_an_environment_the_error_names_one(
    name: str, tmp_path: Path, digits: Path
) -> None:
    with pytest.raises(UserError, match="is answered in one; use a task with an environment"):
        carry_out(config(tmp_path / "run", digits, name))


RESUMED = {
    "ppo": {},
    "dump": {},
    "srpo": {},
    "rcs": {"first_steps": 2, "full": 1.0},
    "ssb": {"group_size": 2},
    "arpo": {},
    "otc": {},
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_ends_as_if_it_had_not_stopped(
    name: str, tmp_path: Path, digits: Path
) -> None:
    """What critics, samplers and buffers remember is in the checkpoint."""
    made = config(tmp_path / "whole", digits, name)
    made["algorithm"] |= RESUMED[name]
    made["trainer"] |= {"steps": STEPS, "checkpoint_every": 2}
    made["critic"] = {"learning_rate": 1e-3}
    sources = [made["data"]]
    if name == "dump":
        sources.append({"task": "digit_box", "path": str(digits / "digit_box" / "train.jsonl")})
    made["data"] = sources
    carry_out(made)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / f"step_{STEPS}")
    carry_out({**made, "run": str(tmp_path / "again")}, resume=True)
    whole, again = (tmp_path / run for run in ("whole", "again"))
    assert ids(whole) == ids(again)
    for file in ("model.safetensors", *(["trainer/critic.safetensors"] if name == "ppo" else [])):
        one, other = (load_file(r / "checkpoints" / f"step_{STEPS}" / file) for r in (whole, again))
        assert all(torch.equal(one[key], other[key]) for key in one)
    states = [
        json.loads((r / "checkpoints" / f"step_{STEPS}" / "trainer" / "state.json").read_text())
        for r in (whole, again)
    ]
    assert states[0]["algorithm"] == states[1]["algorithm"]
    assert states[0]["stream"] == states[1]["stream"]


def ids(run: Path) -> list[list[str]]:
    return [row["ids"] for row in Journal(run / "consumed.jsonl").rows()]
