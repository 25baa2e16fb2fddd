"""Small forms run: one in seconds, all of them in minutes, and what does not run is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from mmrl.config import RunConfig
from mmrl.papers.paper_files import FOLDER, PaperFile, all_papers, read_paper
from mmrl.papers.proof import Proof, prove
from mmrl.runlog.journal import Journal
from mmrl.stage import ESTIMATED_BY
from mmrl.train.phases import phases_of
from mmrl.train.run import train
from mmrl.validation import validate


def proof_of(paper: PaperFile) -> Proof:
    (found,) = prove([paper], lambda proof: None)
    return found


def named(name: str, **small: Any) -> PaperFile:
    """A file of the folder with these sections in its `small`."""
    paper = read_paper(FOLDER / f"{name}.yaml")
    values = {**paper.values, "small": {**paper.values["small"], **small}}
    return dataclasses.replace(paper, values=values)


def test_a_system_runs_through_its_phases() -> None:
    found = proof_of(named("open_rs"))
    assert (found.problem, found.steps) == ("", 2)


def test_a_phase_that_moves_nothing_is_told() -> None:
    """The tiny model answers no question of these right: there is no pair."""
    found = proof_of(named("iterative_dpo", algorithm={"every": 1}))
    assert (found.problem, found.idle) == ("", (1,))
    assert "2 steps, no gradient in phase 1, evaluated" in found.line()
    assert proof_of(named("dpo")).idle == ()


def test_what_does_not_run_is_told() -> None:
    assert "group_siz" in proof_of(named("open_rs", algorithm={"group_siz": 4})).problem
    assert "no data file at" in proof_of(named("open_rs", data={"path": "nowhere.jsonl"})).problem


def test_what_is_not_here_is_not_run() -> None:
    found = proof_of(read_paper(FOLDER / "dino_r1.yaml"))
    assert (found.problem, found.steps) == ("", 0)


@pytest.mark.slow
@pytest.mark.parametrize("paper", all_papers(), ids=lambda paper: paper.id)
def test_every_small_form_runs_end_to_end(paper: PaperFile) -> None:
    found = proof_of(paper)
    assert found.problem == ""
    if paper.about.group == "preference":
        ran = enumerate(phases_of(paper.config()), 1)
        asking = {i for i, phase in ran if phase.config.algorithm_name in ESTIMATED_BY.values()}
        assert set(found.idle) == asking


def run_of(name: str, folder: Path, **sections: Any) -> Path:
    """Carry out a small form with these sections over it; its folder."""
    values = {**read_paper(FOLDER / f"{name}.yaml").small(), "run": str(folder), **sections}
    train(validate(RunConfig, values, name))
    return folder


@pytest.mark.slow
def test_ptst_grows_its_answers_phase_by_phase(tmp_path: Path) -> None:
    longest: dict[float, float] = {}
    for row in Journal(run_of("vision_r1", tmp_path / "run") / "metrics.jsonl").rows():
        longest[row["phase"]] = max(longest.get(row["phase"], 0.0), row["length/max"])
    # The small form's lengths are short enough for the answers to reach them.
    assert [longest[phase] for phase in (2, 3, 4)] == [2, 4, 8]


@pytest.mark.slow
def test_ton_empties_half_of_the_thoughts(tmp_path: Path) -> None:
    phase = read_paper(FOLDER / "ton.yaml").small()["phases"][0]
    phase["trainer"] = {"steps": 12, "prompts_per_step": 2}
    rows = Journal(run_of("ton", tmp_path / "run", phases=[phase]) / "rollouts.jsonl").rows()
    texts = [group["responses"][0]["text"] for group in rows]
    thoughts = [text for text in texts if "<think>" in text]
    emptied = [text for text in thoughts if "<think>\n\n</think>" in text]
    assert 0 < len(emptied) < len(thoughts)
    assert all(text.endswith("### The final answer is:\n2") for text in texts)


def test_results_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    from mmrl.cli import main

    assert main(["papers", "dino_r1", "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == "dino_r1"
