"""Every command answers in JSON; a shell completes what the parser and the models know."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mmrl.api import __all__ as exported
from mmrl.cli import _parser, main
from mmrl.commands.runs import _is_share
from mmrl.commands.shell import words_of
from mmrl.config import RunConfig
from mmrl.errors import ConfigError, DataError, TrainingError, UserError
from mmrl.validation import validate
from tests.conftest import TINY
from tests.runs import make_digits, run_config, write_config


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """What a command prints with --json, which is one value and nothing else."""
    capsys.readouterr()
    assert main([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def parsers() -> dict[str, Any]:
    (commands,) = (a for a in _parser()[0]._actions if a.choices and not a.option_strings)
    return dict(commands.choices or {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    digits = make_digits(folder / "digits", train=6, test=2)
    write_config(folder / "run.yaml", run_config(folder / "run", digits, trainer={"steps": 1}))
    return folder


def test_every_command_has_the_flag() -> None:
    assert all("--json" in parser.format_help() for parser in parsers().values())


def test_what_there_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "digit_count" in {row["name"] for row in said(capsys, "tasks")}
    assert said(capsys, "tasks", "digit_count")["metric"] == "accuracy"
    (checked,) = said(capsys, "tasks", "digit_count", "--check")
    assert checked["records"] >= 5 and checked["problems"] == []
    page = folder / "preview.html"
    assert said(capsys, "tasks", "digit_count", "--preview", str(page)) == {"page": str(page)}
    assert {"name", "summary", "license"} <= said(capsys, "data")[0].keys()
    assert said(capsys, "data", "digits")["task"]
    assert said(capsys, "data", "digits", "--out", str(folder / "made"))["folder"]
    assert {row["name"] for row in said(capsys, "algorithms")} >= {"grpo", "dapo"}
    assert said(capsys, "algorithms", "grpo")["params"]["group_size"] == 8
    assert {row["name"] for row in said(capsys, "families")} >= {"qwen2_5_vl", "generic"}
    assert "grpo" in said(capsys, "completion", "bash")["algorithms"]


def test_runs_and_what_they_leave(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(folder / "run.yaml")
    shown = said(capsys, "train", config, "--print-config", "seed=3")
    assert validate(RunConfig, shown["config"], "test").seed == 3
    result = said(capsys, "train", config)
    assert result["steps"] == 1 and result["run"] == str(folder / "run")
    assert said(capsys, "report", str(folder / "run"))["report"] == str(folder / "run/report.html")
    out = folder / "model"
    assert said(capsys, "export", str(folder / "run"), "--out", str(out))["folder"] == str(out)
    (plan,) = said(capsys, "doctor", config)["phases"]
    assert plan["bytes"]["peak"] > plan["bytes"]["stays"] > plan["parameters"]
    assert said(capsys, "doctor")["packages"]["torch"]


@pytest.mark.parametrize(
    ("source", "share"),
    [
        ({"task": "digit_count"}, True),
        ({"task": "crowd_counting"}, False),
        ({"task": "custom", "params": {"function": "tests.verifiers:abstains"}}, False),
    ],
)
def test_only_a_share_is_told_in_per_cent(source: dict[str, Any], share: bool) -> None:
    values = {"run": "x", "model": {"path": TINY}, "trainer": {"steps": 1}}
    config = validate(RunConfig, {**values, "data": {**source, "path": "x"}}, "test")
    assert _is_share(config) is share


def test_scores(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(folder / "digits" / "digit_count" / "test.jsonl")
    asked = ["--task", "digit_count", "--data", data, "--limit", "1"]
    found = said(capsys, "eval", "--model", TINY, *asked)
    assert found["records"] == 1 and found["metric_name"] == "accuracy"
    record = json.loads(Path(data).read_text().splitlines()[0])
    answers, out = folder / "answers.jsonl", folder / "scores.jsonl"
    answers.write_text(json.dumps({"id": record["id"], "answer": "<answer>1</answer>"}) + "\n")
    words = ["score", "digit_count", "--data", data, "--answers", str(answers), "--out", str(out)]
    found = said(capsys, *words)
    assert (found["answers"], len(found["unanswered"])) == (1, 1)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["tasks", "digit_cuont"], ConfigError),
        (["train", "nowhere.yaml"], ConfigError),
        (["tasks", "digit_count", "--data", "nowhere.jsonl", "--check"], DataError),
        (["report", "nowhere"], ConfigError),
    ],
)
def test_a_mistake_is_a_value_too(
    words: list[str], kind: type[UserError], capsys: pytest.CaptureFixture[str]
) -> None:
    found = said(capsys, *words, code=2)
    assert found["kind"] == kind.__name__ and "\n" not in found["error"]


def test_the_kinds_of_errors_are_public() -> None:
    kinds = (ConfigError, DataError, TrainingError)
    assert {kind.__name__ for kind in (*kinds, UserError)} <= set(exported)
    assert all(issubclass(kind, UserError) for kind in kinds)


COMPLETE = """
source "$1"
COMP_WORDS=("${@:2}"); COMP_CWORD=$(($# - 2))
_mmrl
echo "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "among"),
    [
        (["mmrl", "tr"], {"train"}),
        (["mmrl", ""], {"train", "eval", "tasks", "completion"}),
        (["mmrl", "train", "a.yaml", "--over"], {"--overwrite"}),
        (["mmrl", "train", "a.yaml", "optimizer.l"], {"optimizer.learning_rate="}),
        (["mmrl", "train", "a.yaml", "model.lora.r"], {"model.lora.rank="}),
        (["mmrl", "tasks", "digit_c"], {"digit_count"}),
        (["mmrl", "algorithms", "dap"], {"dapo"}),
        (["mmrl", "data", "digi"], {"digits"}),
        (["mmrl", "eval", "--engine", "h"], {"hf"}),
        (["mmrl", "tasks", "nothing_like_it"], set()),
    ],
)
def test_bash_completes(
    words: list[str], among: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "mmrl.sh").write_text(capsys.readouterr().out)
    command = [bash, "-c", COMPLETE, "bash", str(tmp_path / "mmrl.sh"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    found = set(done.stdout.split())
    assert among <= found and (among or not found)
    assert all(word.startswith(words[-1]) for word in found)


def test_keys_are_those_of_the_configuration() -> None:
    found = set(words_of("train", parsers()["train"]))
    assert {"run=", "data.path=", "trainer.steps=", "rollout.servers.urls="} <= found
    assert "phases=" not in found
