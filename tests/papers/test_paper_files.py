"""The files of papers: every one loads, names what exists, and is told apart from its namesakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mmrl import plugins
from mmrl.cli import main
from mmrl.config import RunConfig, load_config
from mmrl.doctor.preflight import check_run
from mmrl.errors import ConfigError
from mmrl.papers import overview, papers_page
from mmrl.papers.paper_files import FOLDER, all_papers, find_papers, read_paper
from mmrl.train.phases import phases_of
from mmrl.validation import validate

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
PAPER = {
    "name": "X",
    "title": "X: a title",
    "source": "arXiv 2501.00001",
    "year": 2025,
    "group": "relative",
    "modality": ["image"],
    "summary": "what is new",
    "status": "works",
}
RUN = {
    "run": "runs/x",
    "model": {"path": "/models/big", "dtype": "bfloat16", "freeze_tower": True},
    "data": {
        "task": "digit_count",
        "path": "data/x.jsonl",
        "recipe": {"name": "digits", "out": "d"},
    },
    "algorithm": {"name": "grpo", "group_size": 16},
    "rollout": {"max_new_tokens": 4096, "engine": "vllm", "temperature": 0.7},
    "trainer": {"steps": 500, "prompts_per_step": 512},
    "phases": [
        {"name": "a", "algorithm": {"name": "sft"}, "rollout": {"engine": "targets"}},
        {"name": "b", "trainer": {"steps": 300}},
    ],
}


def written(folder: Path, **sections: object) -> Path:
    path = folder / "x.yaml"
    path.write_text(yaml.safe_dump({"paper": PAPER, **RUN, **sections}))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_file_and_its_small_form_name_what_exists(name: str, tmp_path: Path) -> None:
    paper = read_paper(FOLDER / f"{name}.yaml")
    if not paper.runs:
        assert paper.about.lacks and overview.stages(paper) == []
        return
    assert "small" in paper.values, "a file has a section `small`, {} where the rule is enough"
    for phase in phases_of(paper.config()):
        for source in phase.config.data:
            assert source.recipe is None or source.recipe.name in plugins.available("recipe")
    small = validate(RunConfig, {**paper.small(), "run": str(tmp_path / "run")}, name)
    check_run(small)
    assert all(stage.reward for stage in overview.stages(paper))
    assert [p.name for p in phases_of(small)] == [p.name for p in phases_of(paper.config())]


def test_a_file_is_an_ordinary_configuration(tmp_path: Path) -> None:
    path = written(tmp_path, small={"trainer": {"steps": 3}})
    assert load_config(path, ["trainer.steps=7"]).trainer.steps == 7


def test_what_is_not_here_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    about = {**PAPER, "status": "nothing", "lacks": ["a detector is no sampler of tokens"]}
    path.write_text(yaml.safe_dump({"paper": about}))
    with pytest.raises(ConfigError, match="X is not here: a detector is no sampler of tokens"):
        load_config(path)


@pytest.mark.parametrize(("status", "lacks"), [("works", ["a thing"]), ("parts", [])])
def test_a_status_says_what_is_missing(status: str, lacks: list[str], tmp_path: Path) -> None:
    path = written(tmp_path, paper={**PAPER, "status": status, "lacks": lacks})
    with pytest.raises(ConfigError, match=r"paper\.lacks names what is missing"):
        read_paper(path)


def test_a_small_form_keeps_the_method_and_shrinks_the_rest(tmp_path: Path) -> None:
    small = read_paper(
        written(tmp_path, small={"phases": {"b": {"trainer": {"steps": 1}}}})
    ).small()
    config = validate(RunConfig, small, "small")
    first, second = phases_of(config)
    assert (config.model.dtype, config.model.freeze_tower) == ("float32", True)
    assert config.model.path == "asset:tiny_qwen2_5_vl"
    assert config.rollout.engine == "hf" and config.rollout.temperature == 0.7
    assert (first.config.rollout.engine, first.config.algorithm_name) == ("targets", "sft")
    assert first.config.rollout.max_new_tokens == 600 and config.rollout.max_new_tokens == 24
    assert (first.config.trainer.steps, second.config.trainer.steps) == (2, 1)
    assert second.config.algorithm["group_size"] == 4
    assert config.data[0].path.name == "fixture.jsonl" and config.data[0].recipe is None
    assert config.data[0].eval_path == config.data[0].path


def test_null_takes_an_option_out(tmp_path: Path) -> None:
    small = read_paper(written(tmp_path, small={"rollout": {"temperature": None}})).small()
    assert "temperature" not in small["rollout"]


def test_names_are_told_apart() -> None:
    for name in ("SRPO", "BRPO", "RPO", "DAPO"):
        assert len(_called(name)) > 1
        with pytest.raises(ConfigError, match=f"systems are called '{name}'") as told:
            find_papers([name])
        assert all(paper in str(told.value) for paper in _called(name))
    listed = papers_page.page(all_papers())
    for name, others in (
        ("SRPO", ["`srpo_kwai`", "`srpo_reflection`", "not here: Self-Improving Robust"]),
        ("DAPO", ["`dapo`", "`direct_advantage`", "not here: Divergence-Augmented"]),
        ("RPO", ["`rpo_regularised`", "`rpo_reward_aware`", "not here: Relative Preference"]),
        ("BRPO", ["`anytime_reasoner`", "`writing_zero`"]),
    ):
        (line,) = [line for line in listed.splitlines() if line.startswith(f"- {name}: ")]
        assert all(other in line for other in others)
    assert [p.id for p in find_papers(["R1-VL"])] == ["r1_vl"]
    with pytest.raises(ConfigError, match="did you mean 'r1_vl'"):
        find_papers(["r1_v"])


def _called(name: str) -> list[str]:
    return [paper.id for paper in all_papers() if name.casefold() in paper.about.names]


def test_the_page_is_what_the_files_say() -> None:
    written = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    assert written == papers_page.page(all_papers()), "mmrl papers --write docs/papers.md"


def test_the_command_lists_filters_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["papers", "--modality", "audio", "--status", "works"]) == 0
    listed = capsys.readouterr().out
    assert "r1_aqa" in listed and "r1_vl" not in listed
    assert main(["papers", "r1_vl"]) == 0
    shown = capsys.readouterr().out
    assert "stage 2, stepgrpo: stepgrpo, 13125 steps at 1e-06" in shown and "alpha=0.1" in shown
    assert main(["papers", "--check", "--shard", "3/2"]) == 2
