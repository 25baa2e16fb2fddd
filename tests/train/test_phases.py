"""Phases: what a phase is made of, exact resume across a border, and algorithms that need two."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmrl.algorithms.a_star_po import optimal_value
from mmrl.config import RunConfig
from mmrl.errors import UserError
from mmrl.report.curves import borders
from mmrl.runlog.journal import Journal
from mmrl.train import checkpoint
from mmrl.train.phases import Place, phases_of, place_of
from mmrl.train.run import train
from mmrl.validation import validate
from tests.runs import make_digits, run_config

SFT = {
    "name": "warm-up",
    "algorithm": {"name": "sft"},
    "rollout": {"engine": "targets"},
    "trainer": {"steps": 2},
}
RL = {
    "name": "rl",
    "algorithm": {"name": "grpo", "group_size": 3, "kl_coefficient": 0.05},
    "optimizer": {"learning_rate": 5e-4},
    "trainer": {"steps": 3},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("digits"), train=5, test=2)


def config(folder: Path, digits: Path, *phases: dict[str, Any], **sections: Any) -> RunConfig:
    trainer = {"steps": 9, "prompts_per_step": 2, "checkpoint_every": 1, "keep_checkpoints": 2}
    trainer["eval_every"] = 1
    values = run_config(folder, digits, trainer=trainer, **sections)
    return validate(RunConfig, {**values, "phases": list(phases)}, "test")


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step_{step}" / "model.safetensors")


def state(run: Path, step: int) -> dict[str, Any]:
    return dict(checkpoint.at(run, step).state())


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


def test_a_phase_is_the_run_with_its_own_sections_over_it(tmp_path: Path, digits: Path) -> None:
    first, second = phases_of(config(tmp_path, digits, SFT, RL))
    assert first.config.algorithm == {"name": "sft"}
    assert second.config.algorithm == RL["algorithm"]
    assert (first.config.trainer.steps, second.config.trainer.steps) == (2, 3)
    assert second.config.trainer.prompts_per_step == 2
    assert first.config.rollout.engine == "targets" and second.config.rollout.engine == "hf"
    assert first.config.optimizer.learning_rate == 1e-4
    assert first.config.seed != second.config.seed
    (more,) = phases_of(config(tmp_path, digits, {"algorithm": {"group_size": 2}}))
    assert more.config.algorithm == {"name": "grpo", "group_size": 2}


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([SFT, SFT], "the same name: warm-up, warm-up"),
        ([{**SFT, "keep": ["optimizer"]}], "phase 'warm-up' is the first"),
        ([{"name": "x", "trainer": {"stps": 1}}], "phase 'x': unknown key 'trainer.stps'"),
        ([SFT, {"name": "x", "algorithm": {"name": "grop"}}], "did you mean 'grpo'?"),
    ],
)
def test_mistakes_are_told_before_the_first_phase(
    phases: list[dict[str, Any]], message: str, tmp_path: Path, digits: Path
) -> None:
    with pytest.raises(UserError) as error:
        train(config(tmp_path / "run", digits, *phases))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_where_a_run_goes_on(tmp_path: Path, digits: Path) -> None:
    phases = phases_of(
        config(tmp_path, digits, SFT, RL, {**RL, "name": "x", "keep": ["reference"]})
    )
    begun = {"phases": {"starts": [0, 2], "ended": False}}
    over = {"phases": {"starts": [0, 2], "ended": True}}
    assert place_of(begun, 4, phases) == Place((0, 2))
    assert place_of(over, 4, phases) == Place((0, 2, 4))
    # The third phase keeps the reference of the second, which is what that one began with.
    assert Place((0, 2)).reference_phase(phases) == 1
    assert Place((0, 2, 4)).reference_phase(phases) == 1
    assert Place((0, 2)).remaining(phases) == 2 + 3 + 3
    with pytest.raises(UserError, match="fewer phases"):
        place_of(over, 4, phases[:1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    run = tmp_path_factory.mktemp("phases") / "whole"
    train(config(run, digits, SFT, RL))
    return run


def test_a_run_of_two_phases(whole: Path) -> None:
    rows = list(Journal(whole / "metrics.jsonl").rows())
    assert [(row["step"], row["phase"]) for row in rows] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]
    assert [row["train/learning_rate"] for row in rows] == [1e-4] * 2 + [5e-4] * 3
    # A phase's end too, but for the last one's, which stands in the result.
    assert [row["step"] for row in rows if "eval/digit_count" in row] == [1, 2, 3, 4]
    # At the border the reference is the policy: their KL is 0; from then on it is not.
    assert rows[2]["train/kl"] == pytest.approx(0.0, abs=1e-6)
    assert abs(rows[4]["train/kl"]) > 1e-6
    result = json.loads((whole / "result.json").read_text())
    assert (result["steps"], result["seed"]) == (5, 0)
    page = (whole / "report.html").read_text()
    assert 'class="border"' in page and "warm-up (sft), rl (grpo)" in page
    assert "5 of 5" in page and "Algorithm" not in page


def test_the_start_of_a_phase_is_not_thrown_away(whole: Path) -> None:
    kept = {path.name for path in (whole / "checkpoints").iterdir()}
    assert kept == {"step_2", "step_4", "step_5"}
    assert not equal(weights(whole, 2), weights(whole, 5))


@pytest.mark.parametrize("stopped", [2, 4])
def test_a_resumed_run_ends_the_same_on_either_side_of_the_border(
    stopped: int, whole: Path, tmp_path: Path, digits: Path
) -> None:
    run = tmp_path / "again"
    shutil.copytree(whole, run)
    for step in range(stopped + 1, 6):
        shutil.rmtree(run / "checkpoints" / f"step_{step}", ignore_errors=True)
    train(config(run, digits, SFT, RL), resume=True)
    assert equal(weights(run, 5), weights(whole, 5))
    for name in ("metrics.jsonl", "consumed.jsonl"):
        one, other = (list(Journal(r / name).rows()) for r in (run, whole))
        for key in ("ids", "reward/mean", "train/kl", "train/loss"):
            assert [row.get(key) for row in one] == [row.get(key) for row in other]


def test_borders_stand_between_steps() -> None:
    rows = [{"step": 1, "phase": 1.0}, {"step": 2, "phase": 1.0}, {"step": 3, "phase": 2.0}]
    assert borders(rows) == (2.5,)
    assert borders([{"step": 1}, {"step": 2}]) == ()


def test_what_is_kept_is_named(tmp_path: Path, digits: Path) -> None:
    kept = {**RL, "trainer": {"steps": 1}, "keep": ["state", "optimizer", "reference"]}
    run = tmp_path / "run"
    train(config(run, digits, SFT, kept))
    (row,) = [row for row in Journal(run / "metrics.jsonl").rows() if row["step"] == 3]
    # Against the start of the run, not of the phase.
    assert abs(row["train/kl"]) > 1e-6
    moments = load_file(run / "checkpoints" / "step_3" / "trainer" / "optimizer.safetensors")
    counts = {float(value) for name, value in moments.items() if name.startswith("step.")}
    assert counts == {3.0}


def test_a_star_po_regresses_on_estimates_of_an_earlier_phase(tmp_path: Path, digits: Path) -> None:
    estimate = {
        "name": "estimate",
        "algorithm": {"name": "value_estimates", "group_size": 4, "beta": 0.5},
        "trainer": {"steps": 50},
    }
    regress = {"name": "a*-po", "algorithm": {"name": "a_star_po"}, "trainer": {"steps": 2}}
    run = tmp_path / "run"
    train(config(run, digits, estimate, regress))
    rows = list(Journal(run / "metrics.jsonl").rows())
    # Five samples, two a step: three steps, of which the last asks one; then two of regression.
    assert [row["phase"] for row in rows] == [1, 1, 1, 2, 2]
    found = state(run, 3)["algorithm"]["value_estimates"]
    rewards = {
        row["id"]: [r["reward"] for r in row["responses"]]
        for row in Journal(run / "rollouts.jsonl").rows()
        if row["step"] <= 3
    }
    assert found == {key: pytest.approx(optimal_value(r, 0.5)) for key, r in rewards.items()}
    assert len(found) == 5
    assert state(run, 5)["algorithm"]["value_estimates"] == found
    assert not (run / "checkpoints" / "step_1").exists()


def test_gvm_raft_shares_responses_out_by_the_probes_of_an_earlier_phase(
    tmp_path: Path, digits: Path
) -> None:
    probe = {"name": "probe", "algorithm": {"name": "gvm_probe"}, "trainer": {"steps": 50}}
    sample = {"algorithm": {"name": "gvm_raft", "group_size": 4}, "trainer": {"steps": 1}}
    run = tmp_path / "run"
    train(config(run, digits, probe, sample))
    probes = state(run, 3)["algorithm"]["probes"]
    assert len(probes) == 5 and any(p["norm"] > 0 for p in probes.values())
    assert all((p["rate"] > 0) == (p["norm"] > 0) for p in probes.values())
    last = [row for row in Journal(run / "rollouts.jsonl").rows() if row["step"] == 4]
    assert sum(len(row["responses"]) for row in last) == 8
    for row in last:
        useless = not probes[row["id"]]["rate"]
        other = any(probes[r["id"]]["rate"] for r in last)
        assert (not row["responses"]) == (useless and other)


@pytest.mark.parametrize(
    ("name", "needed"), [("a_star_po", "value_estimates"), ("gvm_raft", "gvm_probe")]
)
def test_without_the_earlier_phase_the_error_names_it(
    name: str, needed: str, tmp_path: Path, digits: Path
) -> None:
    with pytest.raises(UserError, match=f"run a phase with {needed} first"):
        train(config(tmp_path / "run", digits, {"name": "x", "algorithm": {"name": name}}))


def test_a_phase_begins_with_the_weights_that_it_names(tmp_path: Path, digits: Path) -> None:
    """What a run began with, and what each phase ended with, told by the first step's KL.

    Phase `b` begins at the start and is compared with `a`: its KL is not 0. So does `c`, which goes
    on from `a` and is compared with `a`: 0. `d` begins like `b`, compared with the start: 0.
    """
    held = {**RL, "trainer": {"steps": 1}}
    run = tmp_path / "run"
    phases = [
        {**SFT, "name": "a", "trainer": {"steps": 2}},
        {**held, "name": "b", "weights": "start", "reference": {"path": "phase:a"}},
        {**held, "name": "c", "weights": "a", "reference": {"path": "phase:a"}},
        {**held, "name": "d", "weights": "start", "reference": {"path": "phase:start"}},
        {**held, "name": "e", "weights": "start"},
    ]
    made = config(run, digits, *phases)
    train(made)
    kl = [row["train/kl"] for row in Journal(run / "metrics.jsonl").rows() if row["step"] > 2]
    assert abs(kl[0]) > 1e-6
    assert kl[1:] == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
    # Whoever resumes at a border begins with the same weights.
    last = weights(run, 6)
    for step in (5, 6):
        shutil.rmtree(run / "checkpoints" / f"step_{step}")
    train(made, resume=True)
    assert equal(weights(run, 6), last)


def test_a_reference_is_kept_from_a_phase_that_began_elsewhere(
    tmp_path: Path, digits: Path
) -> None:
    """Steps behind the weights of the policy in phases 2, 3 and 4, and of their reference."""
    more = {**RL, "keep": ["reference"]}
    phases = phases_of(
        config(
            tmp_path,
            digits,
            SFT,
            {**RL, "name": "back", "weights": "start"},
            {**more, "name": "on"},
            {**more, "name": "aside", "weights": "warm-up"},
        )
    )
    places = [Place((0, 2)), Place((0, 2, 5)), Place((0, 2, 5, 8))]
    assert [place.begun(phases) for place in places] == [0, 5, 2]
    kept = [place.reference_phase(phases) for place in places]
    assert kept == [1, 1, 1]
    assert [place.begun(phases, 1) for place in places] == [0, 0, 0]


def test_a_phase_that_begins_at_the_start_has_the_language_of_the_start(
    tmp_path: Path, digits: Path
) -> None:
    """One that goes on has the language weights that are in its checkpoint."""
    phases = [SFT, {**RL, "weights": "start"}, {**RL, "name": "on"}]
    values = {**run_config(tmp_path, digits), "start": {"language": "L"}, "phases": phases}
    made = phases_of(validate(RunConfig, values, "test"))
    assert [phase.config.start.language for phase in made] == ["L", "L", None]


def test_policy_and_reference_each_take_their_own_start(tmp_path: Path, digits: Path) -> None:
    """The reference is what `rl` began with; `back` begins at the start, `same` where `rl` did."""
    kept = {**RL, "trainer": {"steps": 1}, "keep": ["reference"]}
    phases = [
        SFT,
        {**RL, "trainer": {"steps": 1}},
        {**kept, "name": "back", "weights": "start"},
        {**kept, "name": "same", "weights": "warm-up"},
    ]
    run = tmp_path / "run"
    train(config(run, digits, *phases))
    kl = {row["step"]: row.get("train/kl") for row in Journal(run / "metrics.jsonl").rows()}
    assert abs(kl[4]) > 1e-6
    assert kl[5] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ({"weights": "rl"}, "phase 'rl': weights names 'rl', which is no phase before it"),
        ({"weights": "wram-up"}, "there are start, warm-up"),
        ({"reference": {"path": "phase:later"}}, "phase 'rl': reference names 'later'"),
        ({"reference": {"mean_of": ["phase:warm-up", "phase:x"]}}, "reference names 'x'"),
        ({"weights": "start", "keep": ["optimizer"]}, "moments are those of other weights"),
    ],
)
def test_a_phase_names_those_before_it(
    phase: dict[str, Any], message: str, tmp_path: Path, digits: Path
) -> None:
    later = {**RL, "name": "later"}
    with pytest.raises(UserError) as error:
        train(config(tmp_path / "run", digits, SFT, {**RL, **phase}, later))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()
