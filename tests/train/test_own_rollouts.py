"""Pairs of a run's own rollouts: of the phase that is named, of no other, also after a resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmrl.algorithms.compose import compose
from mmrl.algorithms.stages.samplers import DropSolved
from mmrl.config import RunConfig
from mmrl.data.stored_completions import StoredCompletions
from mmrl.errors import ConfigError
from mmrl.runlog.journal import Journal
from mmrl.train.phases import Place, phases_of
from mmrl.train.run import train
from mmrl.types import Sample
from mmrl.validation import validate
from tests.runs import make_digits, run_config

STORED = "phase:explore"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("digits"), train=6, test=2)


def config(folder: Path, digits: Path, **align: Any) -> RunConfig:
    values = run_config(
        folder,
        digits,
        trainer={"steps": 2, "prompts_per_step": 6, "checkpoint_every": 1, "keep_checkpoints": 9},
        rollout={"temperature": 1.5},
    )
    source = {**values["data"], "stored": STORED, "max_unusable_share": 1.0}
    values["phases"] = [
        {"name": "before"},
        {"name": "explore", "algorithm": {"name": "grpo", "group_size": 4}},
        {
            "name": "align",
            "algorithm": {"name": "dpo", "group_size": 4},
            "data": {**source, **align},
            "rollout": {"engine": "targets"},
        },
    ]
    return validate(RunConfig, values, "test")


def said(run: Path, steps: range) -> set[tuple[str, str]]:
    """What was answered to whom in these steps."""
    rows = Journal(run / "rollouts.jsonl").rows()
    return {
        (row["id"], answer["text"])
        for row in rows
        if row["step"] in steps
        for answer in row["responses"]
    }


def test_pairs_are_of_the_phase_that_is_named(tmp_path: Path, digits: Path) -> None:
    run = tmp_path / "run"
    train(config(run, digits))
    pairs = said(run, range(5, 7))
    assert pairs and pairs <= said(run, range(3, 5)), "the second phase's steps are 3 and 4"
    whole = load_file(run / "checkpoints" / "step_6" / "model.safetensors")
    # Killed within the last phase, whose own rows are then in the file too.
    shutil.rmtree(run / "checkpoints" / "step_6")
    train(config(run, digits), resume=True)
    again = load_file(run / "checkpoints" / "step_6" / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_steps_of_phases_are_known_where_they_ended(tmp_path: Path, digits: Path) -> None:
    phases = phases_of(config(tmp_path, digits))
    assert Place((0, 2, 3)).done(phases) == {"before": (0, 2), "explore": (2, 3)}
    rows = [
        {"step": step, "id": "a", "responses": [{"text": f"{step}", "reward": 1.0}]}
        for step in range(1, 6)
    ]
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = StoredCompletions(tmp_path, (2, 4)).of(Sample("a", "t", (), None)).reference
    assert found is not None and [text for text, _ in found.ranked] == ["3", "4"]


def test_a_phase_that_is_not_before_is_refused(tmp_path: Path, digits: Path) -> None:
    with pytest.raises(ConfigError, match="no phase 'later' before it: before, explore"):
        phases_of(config(tmp_path, digits, stored="phase:later"))


def test_any_algorithm_may_be_given_a_sampler() -> None:
    made = compose({"name": "grpo", "sampler": {"name": "drop_solved", "part": "accuracy"}})
    assert made.sampler == DropSolved("accuracy")
    with pytest.raises(ConfigError, match="did you mean 'drop_solved'"):
        compose({"name": "grpo", "sampler": "drop_solve"})
