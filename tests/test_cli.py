"""The command line answers at once and fails in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmrl.cli import main
from mmrl.policy.model_folder import model_folder
from mmrl.scoring.tasks import fixture_path
from tests.conftest import TINY

LIGHT = """
import json, sys
from mmrl.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    heavy = sorted({"torch", "transformers", "vllm", "scipy"} & set(sys.modules))
    print(json.dumps([code, heavy]))
"""
"""Commands in one process, each with its exit code and the heavy packages imported up to then."""


def outcomes(commands: Sequence[Sequence[str]]) -> tuple[list[Any], list[str]]:
    """Exit codes with imports, and the lines on stderr."""
    words = [sys.executable, "-W", "error", "-c", LIGHT, json.dumps(commands)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()[-len(commands) :]], (
        done.stderr.splitlines()
    )


def test_help_imports_no_torch() -> None:
    """Which is what makes it instant, however busy the machine is."""
    assert outcomes([["--help"]]) == ([[0, []]], [])


def text_only(folder: Path) -> Path:
    """A language model as a hub has it: config and tokenizer, no processor."""
    shutil.copytree(model_folder(TINY), folder)
    (folder / "processor_config.json").unlink()
    settings = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64}
    (folder / "config.json").write_text(json.dumps({**settings, "vocab_size": 512}))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration that could run, and what mistakes are made of."""
    folder = tmp_path_factory.mktemp("cli")
    record = {"prompt": "How many?", "answer": "2"}
    (folder / "records.jsonl").write_text(json.dumps(record) + "\n")
    (folder / "answers.jsonl").write_text("")
    text_only(folder / "llm")
    text_only(folder / "untold")
    for file in (folder / "untold").glob("tokenizer*"):
        file.unlink()
    shutil.copytree(model_folder(TINY), folder / "bare")
    (folder / "bare" / "processor_config.json").unlink()
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text('{"model_type": ')
    values = {
        "run": str(folder / "run"),
        "model": {"path": TINY},
        "data": {
            "task": "custom",
            "path": str(folder / "records.jsonl"),
            "params": {"function": "tests.verifiers:abstains"},
        },
        "trainer": {"steps": 1},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return folder


OVERRIDES = [
    ("model.path={}/nowhere", "no model at {}/nowhere: model.path must hold a transformers"),
    ("model.path={}/untold", "{}/untold has no tokenizer (tokenizer.json or"),
    ("model.path={}/bare", "{}/bare has no processor"),
    ("model.path={}/broken", "{}/broken/config.json: not JSON"),
    ("model.family=qwen2_vll", "unknown family 'qwen2_vll': did you mean 'qwen2_vl'?"),
    ("data.task=digit_cuont", "unknown task 'digit_cuont': did you mean 'digit_count'?"),
    ("data.params.functoin=x", "task 'custom' has no parameter 'functoin': did you mean"),
    ("data.params.function=tests.verifiers:nothing", "tests.verifiers has no function 'nothing'"),
    ("data.params.function=no_such_module:f", "no_such_module"),
    ("data.weights.format=1", "task 'custom' has no reward part 'format'; known: reward"),
    ("data.path={}/typo.jsonl", "no data file at {}/typo.jsonl: check data.path"),
    ("data.eval_path={}/typo.jsonl", "no data file at {}/typo.jsonl: check data.eval_path"),
    ("algorithm.name=gropo", "unknown algorithm 'gropo': did you mean 'grpo'?"),
    ("algorithm.name=DAPO", "unknown algorithm 'DAPO': did you mean 'dapo'?"),
    ("algorithm.name=sft", "gives it the model's own: set rollout.engine=targets"),
    ("algorithm.kl_coef=0.1", "has no option 'kl_coef': did you mean 'kl_coefficient'?"),
    ("algorithm.group_size=0", "'group_size'"),
    ("trainer.stps=1", "unknown key 'trainer.stps': did you mean 'steps'?"),
]
"""Overrides of a configuration that could run, and what is said of each."""


def test_a_run_that_cannot_start_is_refused_before_anything_heavy(written: Path) -> None:
    config = str(written / "run.yaml")
    for command in (["train"], ["train", "--print-config"], ["doctor"]):
        asked = [
            (override.format(written), said.format(written))
            for override, said in OVERRIDES
            if command != ["doctor"] or "typo.jsonl" not in override  # it plans without records
        ]
        found, lines = outcomes([[*command, config, override] for override, _ in asked])
        assert found == [[2, []]] * len(asked)
        assert len(lines) == len(asked)
        for line, (_, said) in zip(lines, asked, strict=True):
            assert said in line


def test_an_evaluation_that_cannot_start_is_refused_before_anything_heavy(written: Path) -> None:
    model, data = ["--model", TINY], ["--data", str(written / "records.jsonl")]
    task = ["--task", "digit_count"]
    asked = {
        ("eval", *model, "--task", "digit_cuont"): "did you mean 'digit_count'?",
        ("eval", *model, *task, "params.thnik=none"): "has no parameter 'thnik'",
        ("eval", *model, *task, "--data", "no.jsonl"): "no data file at no.jsonl: check --data",
        ("eval", "--model", f"{written}/llm", *task): "type 'llama' without an encoder",
        ("eval", "--model", f"{written}/nowhere", *task): "no model at",
        ("eval", *model, "--task", "custom", *data): "needs the parameter 'function'",
        ("score", "digit_cuont", "--answers", "a", "--out", "b"): "did you mean 'digit_count'?",
        ("score", "digit_count", "--answers", "a", "--out", "b"): "no file of answers at a",
        ("data", "digit", "--out", "x"): "did you mean 'digits'?",
        ("tasks", "digit_cuont"): "did you mean 'digit_count'?",
        ("export", f"{written}/nowhere", "--out", "x"): "no folder at",
        ("serve", str(written / "run.yaml"), f"model.path={written}/nowhere"): "no model at",
        ("serve", str(written / "run.yaml"), "--host", "0.0.0.0"): "set MMRL_SERVER_KEY to a",
        ("serve", str(written / "run.yaml"), "--host", "::"): "others could send prompts",
        ("algorithms", "gropo"): "did you mean 'grpo'?",
        ("report", "nowhere"): "no run folder at nowhere",
    }
    found, lines = outcomes(list(asked))
    assert found == [[2, []]] * len(asked) and len(lines) == len(asked)
    for line, said in zip(lines, asked.values(), strict=True):
        assert said in line


def test_what_a_run_will_say_of_its_algorithm_is_shown(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["rollout.max_new_tokens=100", "algorithm.name=dapo", "algorithm.numerics=trl"]
    assert main(["train", str(written / "run.yaml"), "--print-config", *words]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["algorithm"] == {"name": "dapo", "numerics": "trl"}
    assert "# algorithm 'dapo': without use here: numerics=trl (it has paper and verl)" in printed
    assert "# algorithm 'dapo': answers over 80 tokens lose reward, up to 1 point at 100" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "none.yaml"], "no config file at none.yaml"),
        (["report", "nowhere"], "no run folder at nowhere"),
        (["tasks", "digit_cuont"], "did you mean 'digit_count'?"),
        (["data", "digit", "--out", "x"], "did you mean 'digits'?"),
        (["eval", "--model", "nowhere", "--task", "digit_count"], "no model at nowhere"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_no_command_shows_all_and_an_unknown_one_its_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    printed = capsys.readouterr()
    assert "carry out a run from a YAML" in printed.err and not printed.out
    assert main(["trian", "run.yaml"]) == 2
    assert capsys.readouterr().err == "mmrl: no command 'trian': did you mean 'train'?\n"
    assert main(["xyzzy"]) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith("mmrl: no command 'xyzzy': commands: train, ") and "\n" not in error[:-1]
    )


def test_a_task_s_automatic_docstring_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what somebody wrote of the parameters stands below them."""
    digits = Path(fixture_path("digit_count"))
    head = "from dataclasses import dataclass\nfrom mmrl.tasks.digit_count import Task as Base\n\n"
    for said in ("", '    """Three of them."""\n\n'):
        body = f"{head}@dataclass(frozen=True)\nclass Task(Base):\n{said}    turns: int = 3\n"
        (tmp_path / f"own{len(said)}.py").write_text(body)
        name = f"{tmp_path / f'own{len(said)}.py'}:Task"
        assert main(["tasks", name, "--data", str(digits)]) == 0
        printed = capsys.readouterr().out
        assert "turns = 3" in printed and "Task(" not in printed
        assert ("Three of them." in printed) == bool(said)


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    assert main(["algorithms"]) == 0
    printed = capsys.readouterr().out
    for name in ("digit_count", "geometry3k", "grpo"):
        assert name in printed


def test_overrides_may_follow_flags(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(Path(__file__).parent.parent / "configs" / "quickstart.yaml")
    assert main(["train", config, "seed=3", "--print-config", "trainer.steps=7"]) == 0
    printed = capsys.readouterr().out
    assert "seed: 3" in printed and "steps: 7" in printed
    with pytest.raises(SystemExit) as stop:
        main(["train", config, "--no-such-flag"])
    assert stop.value.code == 2


def test_print_config_resolves_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
    assert main(["train", str(config), "algorithm.group_size=4", "--print-config"]) == 0
    assert "group_size: 4" in capsys.readouterr().out
